"""Measurements and the leases by which workers carry them out."""

import datetime as dt
from typing import Any

import numpy as np
import structlog

from app.clock import Clock
from app.flow.rollouts.measurements import MeasurementName, MeasurementStore, measurement_number
from app.flow.rollouts.store import LeaseStore
from app.flow.rollouts.workers import Active, Pace, WorkerStore
from app.flow.students.store import StudentStore
from app.http.idempotency import Idempotency
from paced.wire import (
    Lease,
    LeaseClaim,
    LeaseReport,
    LeaseStatus,
    LeaseToken,
    Measurement,
    MeasurementCreate,
    ReportReceipt,
    Workers,
)

log = structlog.get_logger()
TICK = dt.timedelta(microseconds=1)
NOTHING_DUE: dict[str, Any] = {
    "lease_id": None,
    "token": None,
    "state": None,
    "measurement_id": None,
    "checkpoint": None,
    "profile": None,
    "expires_at": None,
    "problems": [],
}


class RolloutService:
    """Stage 3 of the flow."""

    def __init__(
        self,
        measurements: MeasurementStore,
        leases: LeaseStore,
        workers: WorkerStore,
        students: StudentStore,
        clock: Clock,
        idle_retry_s: float,
    ) -> None:
        self._measurements = measurements
        self._leases = leases
        self._workers = workers
        self._students = students
        self._clock = clock
        self._idle_retry_s = idle_retry_s
        self._rng = np.random.default_rng()

    async def names(self) -> list[MeasurementName]:
        """What every measurement is of, oldest first."""
        return await self._measurements.names()

    async def measure(self, body: MeasurementCreate, holdout_share: float = 0.0) -> Measurement:
        """Keep pass rates of a student on a set; the same measurement again is returned."""
        now = self._clock()
        number = await self._measurements.create(body, holdout_share, now)
        return await self._measurements.get(number, now)

    async def measurement(self, measurement_id: str) -> Measurement:
        """How far a measurement is."""
        return await self._measurements.get(measurement_number(measurement_id), self._clock())

    async def page(self, student: str | None, after: int | None, limit: int) -> list[Measurement]:
        """Measurements, oldest first."""
        return await self._measurements.page(student, after or 0, limit, self._clock())

    async def claim(self, body: LeaseClaim, identity: Idempotency) -> Lease:
        """Lease due problems, from the measurement named or from any of the student's."""
        now = self._clock()
        if body.measurement_id is None:
            await self._students.get(body.student)
            numbers = await self._measurements.numbers_of(body.student)
        else:
            numbers = [measurement_number(body.measurement_id)]
        lease = await self._leases.claim(numbers, body, identity, now, self._rng)
        if lease is None:
            return Lease.model_validate({**NOTHING_DUE, "retry_after_s": self._idle_retry_s})
        log.info("leased", lease_id=lease.lease_id, worker=body.worker, n_problems=len(lease.problems))
        return lease

    async def leases(self, measurement_id: str, after: str | None, limit: int) -> list[LeaseStatus]:
        """Leases that are not over, by id."""
        return await self._leases.page(measurement_number(measurement_id), after or "", limit, self._clock())

    async def workers(self, measurement_id: str, *, is_timed: bool = True) -> Workers:
        """Who measures, how fast, what waits, and what is slow; graders and answers only where they are timed."""
        return await self._workers.get(measurement_number(measurement_id), self._clock(), is_timed=is_timed)

    async def pace(self, measurement_id: int) -> Pace:
        """How fast a measurement is measured now."""
        return await self._workers.pace(measurement_id, self._clock())

    async def active(self) -> list[Active]:
        """Measurements that are in use."""
        return await self._workers.active(self._clock())

    async def renew(self, lease_id: str, body: LeaseToken) -> ReportReceipt:
        """Hold a lease for longer."""
        return await self._leases.renew(lease_id, body.token, body.ttl_s, self._clock())

    async def report(self, lease_id: str, body: LeaseReport) -> ReportReceipt:
        """Count finished groups, each once, a few a transaction; where a lease is lost half-way, those stay counted."""
        n_accepted, now = 0, self._clock()
        while True:
            receipt = await self._leases.report(lease_id, body, now)
            n_accepted += receipt.n_accepted
            if receipt.n_accepted + receipt.n_replayed == len(body.groups):
                n_replayed = len(body.groups) - n_accepted
                return receipt.model_copy(update={"n_accepted": n_accepted, "n_replayed": n_replayed})
            now = max(self._clock(), now + TICK)  # groups of one time are one report to the rebuild

    async def release(self, lease_id: str, body: LeaseToken) -> ReportReceipt:
        """Hand the rest of a lease back."""
        return await self._leases.release(lease_id, body.token, self._clock())
