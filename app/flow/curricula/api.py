"""Routes of stage 5: curricula."""

from typing import Annotated, cast

from fastapi import APIRouter, Query, Request, Response

from app.auth.guard import requires
from app.flow.curricula.service import CurriculumService
from app.flow.estimates.api import EstimateQuery, estimate_page
from app.http.pages import NoQuery, PageQuery, page
from paced.wire import Curriculum, CurriculumCreate, CurriculumUpdate, EstimatePage, Name, Page, Scope

router = APIRouter(prefix="/v1/curricula", tags=["5 curricula"])
READ, TRAIN = requires(Scope.READ), requires(Scope.TRAIN)


class CurriculumQuery(PageQuery):
    """Filters of the curriculum list."""

    student: Name | None = None
    name: Name | None = None


def _curricula(request: Request) -> CurriculumService:
    return cast("CurriculumService", request.app.state.curricula)


@router.post("", status_code=201, operation_id="create_curriculum", dependencies=[TRAIN])
async def create(request: Request, body: CurriculumCreate, _query: Annotated[NoQuery, Query()]) -> Curriculum:
    """Create a curriculum and the measurement it needs; the same one again is returned."""
    return await _curricula(request).create(body)


@router.get("", operation_id="list_curricula", dependencies=[READ])
async def listed(request: Request, response: Response, query: Annotated[CurriculumQuery, Query()]) -> Page[Curriculum]:
    """Curricula by name."""
    items = await _curricula(request).page(query.student, query.name, query.after(str), query.limit + 1)
    return page(request, response, items, query.limit, "name")


@router.get("/{curriculum_id}", operation_id="get_curriculum", dependencies=[READ])
async def get(request: Request, curriculum_id: str, _query: Annotated[NoQuery, Query()]) -> Curriculum:
    """One curriculum in its newest version."""
    return await _curricula(request).get(curriculum_id)


@router.get("/{curriculum_id}/estimates", operation_id="list_curriculum_estimates", dependencies=[READ])
async def estimates(
    request: Request, response: Response, curriculum_id: str, query: Annotated[EstimateQuery, Query()]
) -> EstimatePage:
    """The measurement's estimates with their weights in this curriculum; a query may filter and sort by `weight`."""
    return estimate_page(request, response, await _curricula(request).find(curriculum_id, query.wanted()))


@router.patch("/{curriculum_id}", operation_id="update_curriculum", dependencies=[TRAIN])
async def change(
    request: Request, curriculum_id: str, body: CurriculumUpdate, _query: Annotated[NoQuery, Query()]
) -> Curriculum:
    """Change a running curriculum; the next draw follows, under a new version."""
    return await _curricula(request).update(curriculum_id, body)
