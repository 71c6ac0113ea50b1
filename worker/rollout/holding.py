"""One lease in this worker's hands: renewed, its groups reported as they finish, lost or released."""

import asyncio

import structlog

from paced.errors import LeaseLost
from paced.wire import Checkpoint, Lease, LeaseReport, LeaseToken, Profile, RolloutGroup
from worker.rollout.service import Line, Service
from worker.rollout.tally import Tally

MAX_REPORT_CHARS = 4_000_000

log = structlog.get_logger(__name__)


class Holding:
    """Takes groups by `put`; `run` renews the lease and reports them until none is open or the lease is lost."""

    def __init__(
        self, lease: Lease, service: Service, line: Line, tally: Tally, *, ttl_s: float, report_every_s: float
    ) -> None:
        if lease.lease_id is None or lease.token is None or lease.checkpoint is None or lease.profile is None:
            raise ValueError("an empty lease cannot be held")
        self.lease_id: str = lease.lease_id
        self.checkpoint: Checkpoint = lease.checkpoint
        self.profile: Profile = lease.profile
        self.problems = lease.problems
        self.is_lost = False
        self.groups: set[asyncio.Task[None]] = set()
        self._token = lease.token
        self._service, self._line, self._tally = service, line, tally
        self._ttl_s, self._report_every_s = ttl_s, report_every_s
        self._open = {problem.problem_id for problem in lease.problems}
        self._outbox: list[RolloutGroup] = []
        self._is_closing = False
        self._wake = asyncio.Event()

    def put(self, group: RolloutGroup) -> None:
        """Report this group within `report_every_s`."""
        if not self.is_lost:
            self._open.discard(group.problem_id)
            self._outbox.append(group)
            self._wake.set()

    def close(self) -> None:
        """Take no more groups: report what is there, then release the rest."""
        self._is_closing = True
        self._wake.set()

    async def run(self) -> None:
        """Hold the lease to its end; raises the errors of `paced.errors` that are not of this lease."""
        renewing = asyncio.create_task(self._renew())
        reporting = asyncio.create_task(self._report())
        try:
            done, _ = await asyncio.wait({renewing, reporting}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except LeaseLost as error:
            self._lose(error)
        finally:
            renewing.cancel()
            reporting.cancel()
            await asyncio.gather(renewing, reporting, return_exceptions=True)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            token = LeaseToken(token=self._token, ttl_s=self._ttl_s)
            await self._line.call(self._service.renew_lease, self.lease_id, token)

    async def _report(self) -> None:
        while self._open or self._outbox:
            await self._wake.wait()
            if self._open and not self._is_closing:
                await asyncio.sleep(self._report_every_s)  # what finishes meanwhile goes along
            self._wake.clear()
            while self._outbox:
                await self._send()
            if self._is_closing and self._open:
                await self._line.call(self._service.release_lease, self.lease_id, LeaseToken(token=self._token))
                self._tally.n_leases_released += 1
                return

    async def _send(self) -> None:
        n_groups, n_chars = 0, 0
        while n_groups < len(self._outbox) and (n_groups == 0 or n_chars < MAX_REPORT_CHARS):
            n_chars += sum(len(rollout.text) for rollout in self._outbox[n_groups].rollouts)
            n_groups += 1
        groups = self._outbox[:n_groups]
        await self._line.call(
            self._service.report_rollouts, self.lease_id, LeaseReport(token=self._token, groups=groups)
        )
        del self._outbox[:n_groups]  # only now: a report that was cut off is sent again, and replayed there
        for group in groups:
            self._tally.count_reported(group)

    def _lose(self, error: LeaseLost) -> None:
        self.is_lost = True
        self._tally.n_leases_lost += 1
        self._tally.n_groups_lost += len(self._open) + len(self._outbox)
        log.warning("lease lost; its open problems go to another worker", lease_id=self.lease_id, error=error.detail)
        self._outbox.clear()
        for task in self.groups:
            task.cancel()
