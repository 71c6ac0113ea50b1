"""Routes of stage 4: estimates, hold-out progress, the frontier."""

from typing import Annotated, cast

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from app.auth.guard import requires
from app.flow.estimates.finding import Found, Wanted
from app.flow.estimates.query import MAX_LENGTH, parse
from app.flow.estimates.reviewing import ReviewCounting
from app.flow.estimates.service import EstimateService
from app.flow.rollouts.measurements import measurement_number
from app.http.pages import NoQuery, PageQuery, cursor_at, link_next
from paced.wire import EstimatePage, Frontier, HoldoutPoint, ProblemEstimate, ReviewsCounted, Scope

router = APIRouter(prefix="/v1/measurements/{measurement_id}", tags=["4 estimates"])
READ = requires(Scope.READ)


class EstimateQuery(PageQuery):
    """Which estimates, in which order."""

    query: Annotated[
        str, Field(max_length=MAX_LENGTH, description="Only those that it selects, such as `tag:algebra p<0.4 sort:-p`")
    ] = ""
    is_holdout: Annotated[bool | None, Field(description="Only the hold-out, or only the rest")] = None
    with_problems: Annotated[bool, Field(description="Each with its problem")] = False

    def wanted(self) -> Wanted:
        """The page that is asked for; raises BadQuery."""
        parsed, after = parse(self.query), self.after(list)
        return Wanted(parsed, self.is_holdout, after, self.limit, self.with_problems)


def estimate_page(request: Request, response: Response, found: Found) -> EstimatePage:
    """What was found, with the link to the next page."""
    cursor = None if found.last is None else cursor_at(found.last)
    if cursor is not None:
        response.headers.update(link_next(request, cursor))
    return EstimatePage(items=found.items, next_cursor=cursor, n_matches=found.n_matches)


def _estimates(request: Request) -> EstimateService:
    return cast("EstimateService", request.app.state.estimates)


@router.get("/estimates", operation_id="list_estimates", dependencies=[READ])
async def listed(
    request: Request, response: Response, measurement_id: str, query: Annotated[EstimateQuery, Query()]
) -> EstimatePage:
    """Posterior pass rates by ordinal, or those that a query selects, in its order."""
    found = await _estimates(request).find(measurement_number(measurement_id), query.wanted())
    return estimate_page(request, response, found)


@router.get("/estimates/{problem_id}", operation_id="get_estimate", dependencies=[READ])
async def get(
    request: Request,
    measurement_id: str,
    problem_id: Annotated[int, Path(ge=0, lt=2**63)],
    _query: Annotated[NoQuery, Query()],
) -> ProblemEstimate:
    """One posterior with its observations, newest first."""
    return await _estimates(request).get(measurement_number(measurement_id), problem_id)


@router.get("/holdout", operation_id="get_holdout", dependencies=[READ])
async def holdout(request: Request, measurement_id: str, _query: Annotated[NoQuery, Query()]) -> list[HoldoutPoint]:
    """Hold-out pass rate at each measured checkpoint."""
    return await _estimates(request).holdout(measurement_number(measurement_id))


@router.get("/frontier", operation_id="get_frontier", dependencies=[READ])
async def frontier(request: Request, measurement_id: str, _query: Annotated[NoQuery, Query()]) -> Frontier:
    """Histogram of the training problems' newest pass rates."""
    return await _estimates(request).frontier(measurement_number(measurement_id))


@router.post("/reviews/count", operation_id="count_reviews", dependencies=[requires(Scope.IMPORT)])
async def count_reviews(request: Request, measurement_id: str, _query: Annotated[NoQuery, Query()]) -> ReviewsCounted:
    """Put the verdicts of reviews into the log, and make the estimates again from it."""
    counting: ReviewCounting = request.app.state.review_counting
    return await counting.count(measurement_number(measurement_id))
