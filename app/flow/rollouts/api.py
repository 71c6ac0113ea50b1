"""Routes of stage 3: measurements and rollout leases."""

from typing import Annotated, cast

from fastapi import APIRouter, Query, Request, Response

from app.auth.guard import requires
from app.flow.rollouts.measurements import measurement_number
from app.flow.rollouts.service import RolloutService
from app.http.idempotency import KeyHeader, idempotency
from app.http.pages import NoQuery, PageQuery, page
from paced.wire import (
    Lease,
    LeaseClaim,
    LeaseReport,
    LeaseStatus,
    LeaseToken,
    Measurement,
    MeasurementCreate,
    Name,
    Page,
    ReportReceipt,
    Scope,
    Workers,
)

router = APIRouter(prefix="/v1", tags=["3 rollouts"])
READ, ROLLOUT = requires(Scope.READ), requires(Scope.ROLLOUT)


class MeasurementQuery(PageQuery):
    """Filters of the measurement list."""

    student: Name | None = None


def _rollouts(request: Request) -> RolloutService:
    return cast("RolloutService", request.app.state.rollouts)


@router.post("/measurements", status_code=201, operation_id="create_measurement", dependencies=[ROLLOUT])
async def measure(request: Request, body: MeasurementCreate, _query: Annotated[NoQuery, Query()]) -> Measurement:
    """Keep pass rates of a student on a set under a profile; the same one again is returned."""
    return await _rollouts(request).measure(body)


@router.get("/measurements", operation_id="list_measurements", dependencies=[READ])
async def measurements(
    request: Request, response: Response, query: Annotated[MeasurementQuery, Query()]
) -> Page[Measurement]:
    """Measurements with their progress, oldest first."""
    after = query.after(str)
    number = None if after is None else measurement_number(after)
    items = await _rollouts(request).page(query.student, number, query.limit + 1)
    return page(request, response, items, query.limit, "measurement_id")


@router.get("/measurements/{measurement_id}", operation_id="get_measurement", dependencies=[READ])
async def measurement(request: Request, measurement_id: str, _query: Annotated[NoQuery, Query()]) -> Measurement:
    """How far a measurement is."""
    return await _rollouts(request).measurement(measurement_id)


@router.get("/measurements/{measurement_id}/leases", operation_id="list_leases", dependencies=[READ])
async def leases(
    request: Request, response: Response, measurement_id: str, query: Annotated[PageQuery, Query()]
) -> Page[LeaseStatus]:
    """Leases that are not over, with the problems that each still owes; a late one goes at the next claim."""
    items = await _rollouts(request).leases(measurement_id, query.after(str), query.limit + 1)
    return page(request, response, items, query.limit, "lease_id")


@router.get("/measurements/{measurement_id}/workers", operation_id="get_workers", dependencies=[READ])
async def workers(request: Request, measurement_id: str, _query: Annotated[NoQuery, Query()]) -> Workers:
    """Who measures, how fast, what waits, and what is slow."""
    return await _rollouts(request).workers(measurement_id)


@router.post("/rollout-leases", status_code=201, operation_id="claim_lease", dependencies=[ROLLOUT])
async def claim(
    request: Request, body: LeaseClaim, _query: Annotated[NoQuery, Query()], key: KeyHeader = None
) -> Lease:
    """Lease due problems: the hold-out first, then a uniform audit share, then the longest unmeasured."""
    return await _rollouts(request).claim(body, idempotency(key, body))


@router.post("/rollout-leases/{lease_id}/renew", operation_id="renew_lease", dependencies=[ROLLOUT])
async def renew(
    request: Request, lease_id: str, body: LeaseToken, _query: Annotated[NoQuery, Query()]
) -> ReportReceipt:
    """Hold a lease for `ttl_s` from now."""
    return await _rollouts(request).renew(lease_id, body)


@router.post("/rollout-leases/{lease_id}/report", operation_id="report_rollouts", dependencies=[ROLLOUT])
async def report(
    request: Request, lease_id: str, body: LeaseReport, _query: Annotated[NoQuery, Query()]
) -> ReportReceipt:
    """Report finished groups; each is counted once, a late one is refused."""
    return await _rollouts(request).report(lease_id, body)


@router.post("/rollout-leases/{lease_id}/release", operation_id="release_lease", dependencies=[ROLLOUT])
async def release(
    request: Request, lease_id: str, body: LeaseToken, _query: Annotated[NoQuery, Query()]
) -> ReportReceipt:
    """Hand unreported problems back."""
    return await _rollouts(request).release(lease_id, body)
