"""Routes of stage 3 for what was answered already: stored answers, new verdicts, disputes."""

from typing import Annotated, cast

from fastapi import APIRouter, Query, Request, Response

from app.auth.guard import requires
from app.flow.rollouts.measurements import measurement_number
from app.flow.rollouts.review import ReviewService
from app.http.pages import NoQuery, PageQuery, page
from paced.wire import (
    Dispute,
    DisputeKind,
    Id,
    Page,
    RegradeReceipt,
    RegradeReport,
    Review,
    ReviewCreate,
    Scope,
    StoredGroup,
)

router = APIRouter(prefix="/v1/measurements/{measurement_id}", tags=["3 rollouts"])


class GroupQuery(PageQuery):
    """Filters of the stored answers."""

    missing_in: Id | None = None


class DisputeQuery(PageQuery):
    """Which disputes."""

    kind: DisputeKind = DisputeKind.GRADERS_DIFFER


def _review(request: Request) -> ReviewService:
    return cast("ReviewService", request.app.state.review)


@router.get("/groups", operation_id="list_groups", dependencies=[requires(Scope.READ)])
async def groups(
    request: Request, response: Response, measurement_id: str, query: Annotated[GroupQuery, Query()]
) -> Page[StoredGroup]:
    """Stored answers by observation, oldest first; `missing_in` leaves out those regraded into that measurement."""
    other = None if query.missing_in is None else measurement_number(query.missing_in)
    number, after = measurement_number(measurement_id), query.after(int)
    items = await _review(request).groups(number, other, after, query.limit + 1)
    return page(request, response, items, query.limit, "observation_id")


@router.post("/regrades", operation_id="regrade", dependencies=[requires(Scope.ROLLOUT)])
async def regrade(
    request: Request, measurement_id: str, body: RegradeReport, _query: Annotated[NoQuery, Query()]
) -> RegradeReceipt:
    """Count stored answers of another measurement under new verdicts; each observation is taken once."""
    return await _review(request).regrade(measurement_number(measurement_id), body)


@router.get("/disputes", operation_id="list_disputes", dependencies=[requires(Scope.READ)])
async def disputes(
    request: Request, response: Response, measurement_id: str, query: Annotated[DisputeQuery, Query()]
) -> Page[Dispute]:
    """Verdicts in doubt: two graders differ, or a problem never passed though an answer holds its reference."""
    number, after = measurement_number(measurement_id), query.after(int)
    items = await _review(request).disputes(number, query.kind, after, query.limit + 1)
    return page(request, response, items, query.limit, "dispute_id")


@router.post("/reviews", status_code=201, operation_id="review_answer", dependencies=[requires(Scope.IMPORT)])
async def review(
    request: Request, measurement_id: str, body: ReviewCreate, _query: Annotated[NoQuery, Query()]
) -> Review:
    """Say whether a stored answer is right; it takes effect when the reviews are counted, and may change until then."""
    return await _review(request).review(measurement_number(measurement_id), body)


@router.get("/reviews", operation_id="list_reviews", dependencies=[requires(Scope.READ)])
async def reviews(
    request: Request, response: Response, measurement_id: str, query: Annotated[PageQuery, Query()]
) -> Page[Review]:
    """Who said what of which answer, oldest first."""
    number, after = measurement_number(measurement_id), query.after(int)
    items = await _review(request).reviews(number, after, query.limit + 1)
    return page(request, response, items, query.limit, "review_id")
