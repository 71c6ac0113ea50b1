"""Routes of stage 4: estimates, hold-out progress, the frontier."""

from typing import Annotated, cast

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from app.auth.guard import requires
from app.flow.estimates.service import EstimateService
from app.flow.rollouts.measurements import measurement_number
from app.http.pages import NoQuery, PageQuery, page
from paced.wire import Estimate, Frontier, HoldoutPoint, Page, ProblemEstimate, Scope

router = APIRouter(
    prefix="/v1/measurements/{measurement_id}", tags=["4 estimates"], dependencies=[requires(Scope.READ)]
)


class EstimateQuery(PageQuery):
    """Filters of the estimate list."""

    is_holdout: Annotated[bool | None, Field(description="Only the hold-out, or only the rest")] = None


def _estimates(request: Request) -> EstimateService:
    return cast("EstimateService", request.app.state.estimates)


@router.get("/estimates", operation_id="list_estimates")
async def listed(
    request: Request, response: Response, measurement_id: str, query: Annotated[EstimateQuery, Query()]
) -> Page[Estimate]:
    """Posterior pass rates by ordinal."""
    number = measurement_number(measurement_id)
    items = await _estimates(request).page(number, query.after(int), query.limit + 1, query.is_holdout)
    return page(request, response, items, query.limit, "ordinal")


@router.get("/estimates/{problem_id}", operation_id="get_estimate")
async def get(
    request: Request,
    measurement_id: str,
    problem_id: Annotated[int, Path(ge=0, lt=2**63)],
    _query: Annotated[NoQuery, Query()],
) -> ProblemEstimate:
    """One posterior with its observations, newest first."""
    return await _estimates(request).get(measurement_number(measurement_id), problem_id)


@router.get("/holdout", operation_id="get_holdout")
async def holdout(request: Request, measurement_id: str, _query: Annotated[NoQuery, Query()]) -> list[HoldoutPoint]:
    """Hold-out pass rate at each measured checkpoint."""
    return await _estimates(request).holdout(measurement_number(measurement_id))


@router.get("/frontier", operation_id="get_frontier")
async def frontier(request: Request, measurement_id: str, _query: Annotated[NoQuery, Query()]) -> Frontier:
    """Histogram of the training problems' newest pass rates."""
    return await _estimates(request).frontier(measurement_number(measurement_id))
