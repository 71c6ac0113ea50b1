"""Route of stage 1: texts of problems by id, for trainers whose batches carry ids only."""

from typing import Annotated, cast

from fastapi import APIRouter, Query, Request, Response

from app.auth.guard import requires
from app.flow.problems.service import ProblemService
from app.http.pages import NoQuery
from paced.wire import ProblemTexts, ProblemTextsQuery, Scope

router = APIRouter(prefix="/v1/problem-texts", tags=["1 problems"])


@router.post(
    "/query",
    operation_id="query_problem_texts",
    response_model=ProblemTexts,
    dependencies=[requires(Scope.READ)],
)
async def texts(request: Request, body: ProblemTextsQuery, _query: Annotated[NoQuery, Query()]) -> Response:
    """Texts of some problems, without those that still have the ETag given."""
    service = cast("ProblemService", request.app.state.problems)
    return Response(await service.texts(body.problem_ids, body.etags), media_type="application/json")
