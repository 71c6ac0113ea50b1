"""The calls that a worker makes to the service, made from async code and outlasting a service that is away."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import structlog

from paced.errors import Unavailable, Unreachable
from paced.wire import Lease, LeaseClaim, LeaseReport, LeaseToken, ReportReceipt
from worker.rollout.threads import in_thread

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 15.0

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Service(Protocol):
    """The four calls of `paced.client.Client` that a worker makes."""

    def claim_lease(self, body: LeaseClaim, key: str | None = None) -> Lease:
        """Lease problems to roll out."""
        ...

    def renew_lease(self, lease_id: str, body: LeaseToken) -> ReportReceipt:
        """Hold a lease for longer."""
        ...

    def report_rollouts(self, lease_id: str, body: LeaseReport) -> ReportReceipt:
        """Report finished groups."""
        ...

    def release_lease(self, lease_id: str, body: LeaseToken) -> ReportReceipt:
        """Hand back what is not reported."""
        ...


class Line:
    """One line to the service: a call is tried until it is answered, and the waiting is said once."""

    def __init__(self) -> None:
        self._away_since: float | None = None

    @property
    def is_away(self) -> bool:
        """Whether the last try found no service."""
        return self._away_since is not None

    async def call(self, method: Callable[..., T], *arguments: Any) -> T:
        """What `method` returns; raises the errors of `paced.errors` that trying again does not cure."""
        wait_s = FIRST_WAIT_S
        while True:
            try:
                answer = await in_thread(method, *arguments)
            except (Unreachable, Unavailable) as error:
                self._note_away(error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            else:
                self._note_back()
                return answer

    def _note_away(self, error: Exception) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            log.warning("the service does not answer; trying on, finished groups are kept", error=str(error))

    def _note_back(self) -> None:
        if self._away_since is not None:
            log.info("the service answers again", away_s=round(time.monotonic() - self._away_since, 1))
            self._away_since = None
