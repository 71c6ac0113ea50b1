"""The route of alarms, beside the flow."""

from typing import Annotated, cast

from fastapi import APIRouter, Query, Request
from pydantic import Field

from app.alarms.service import AlarmService
from app.auth.guard import requires
from app.http.pages import NoQuery
from paced.wire import Alarm, Id, Scope

router = APIRouter(prefix="/v1", tags=["health"], dependencies=[requires(Scope.READ)])


class AlarmQuery(NoQuery):
    """Whose alarms."""

    measurement_id: Annotated[Id | None, Field(description="Only this measurement's")] = None


@router.get("/alarms", operation_id="list_alarms")
async def alarms(request: Request, query: Annotated[AlarmQuery, Query()]) -> list[Alarm]:
    """What needs a person now, serious ones first; empty when all is well."""
    return await cast("AlarmService", request.app.state.alarms).check(query.measurement_id)
