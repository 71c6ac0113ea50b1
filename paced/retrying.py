"""When a request is sent again, and how long after. Pure: the clock and the randomness are arguments."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx2

BUSY_STATUS: Final = frozenset({429, 502, 503, 504})
FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 5.0
MAX_RETRY_AFTER_S: Final = 60.0
MAX_INTERNAL_ERRORS: Final = 6  # in a row: an error that stays is said within seconds

Outcome = httpx2.Response | httpx2.TransportError


class Tries:
    """The tries of one call: back-off that doubles, each wait drawn from its upper half, or as the service asks.

    No wait ends later than `retry_s` after the start; 0 means one try. Every request may be sent again: reading changes
    nothing, and what creates carries an Idempotency-Key.
    """

    def __init__(
        self, retry_s: float, now: Callable[[], float], uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._now, self._uniform = now, uniform
        self._deadline = now() + retry_s
        self._backoff_s = FIRST_WAIT_S
        self._n_internal = 0

    def wait_s(self, outcome: Outcome) -> float | None:
        """How long to wait before the next try (seconds), None when this outcome is final."""
        if not self._may_pass(outcome):
            return None
        asked = retry_after_s(outcome) if isinstance(outcome, httpx2.Response) else None
        wait_s = self._uniform(self._backoff_s / 2, self._backoff_s)
        self._backoff_s = min(2 * self._backoff_s, LONGEST_WAIT_S)
        if asked is not None:
            wait_s = asked + self._uniform(0, min(asked, 1.0) / 4)  # those who were told the same come apart
        return wait_s if self._now() + wait_s < self._deadline else None

    def _may_pass(self, outcome: Outcome) -> bool:
        if not isinstance(outcome, httpx2.Response):
            self._n_internal = 0
            return True
        self._n_internal = self._n_internal + 1 if outcome.status_code == 500 else 0
        return outcome.status_code in BUSY_STATUS or 0 < self._n_internal < MAX_INTERNAL_ERRORS


def retry_after_s(response: httpx2.Response) -> float | None:
    """The seconds of a Retry-After header, at most a minute; a date counts from the answer's own."""
    header = response.headers.get("Retry-After")
    if header is None:
        return None
    try:
        seconds = float(header) if header[:1].isdigit() else _until(header, response.headers.get("Date"))
    except (TypeError, ValueError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _until(date: str, sent: str | None) -> float:
    start = parsedate_to_datetime(sent) if sent else datetime.now(UTC)
    return (parsedate_to_datetime(date) - start).total_seconds()
