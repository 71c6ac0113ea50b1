"""What a client call can raise.

PacedError
├── Unreachable            no answer came: the service is down, or the network is
├── VersionMismatch        client and service are of versions that do not understand each other
└── ApiError               the service answered with a problem detail (RFC 9457)
    ├── BadRequest         400, 413, 415, 422: mend the request
    ├── NotAllowed         401, 403: wrong key or scope
    ├── NotFound           404
    ├── Conflict           409: the state forbids it
    │   ├── LeaseLost          the rollout lease is no longer yours
    │   ├── BatchExpired       the batch was not acknowledged in time
    │   ├── NothingEligible    no problem can be drawn now
    │   └── ScheduleComplete   every stage of the curriculum is done
    └── Unavailable        429, 5xx: try again later
"""

from typing import Any

from paced import __version__


class PacedError(Exception):
    """Base of everything this package raises."""


class Unreachable(PacedError):
    """The service gave no answer, after all retries."""


class VersionMismatch(PacedError):
    """An answer that this client cannot read, or a request that this service does not know; it says which to change."""

    def __init__(self, url: str, method: str, path: str, theirs: str | None, detail: str) -> None:
        if theirs is None:
            said = f"{url} does not answer as a PACED service does; check the address"
        elif theirs == __version__:
            said = f"{url} says it has this client's version: one of the two is a changed copy, install both anew"
        else:
            said = f"install `paced=={theirs}` here, or bring the service to {__version__}"
        super().__init__(
            f"{method} {path}: client {__version__} and service {theirs or 'unknown'} do not understand each other "
            f"({detail}); {said}"
        )
        self.service_version = theirs


class ApiError(PacedError):
    """An error answer; `code` is stable, `detail` says what, where and what to do."""

    def __init__(self, status: int, code: str, detail: str, members: dict[str, Any] | None = None) -> None:
        super().__init__(f"{detail} [{code}, HTTP {status}]")
        self.status = status
        self.code = code
        self.detail = detail
        self.members = members or {}


class BadRequest(ApiError):
    """The request must be mended."""


class NotAllowed(ApiError):
    """The key is missing, wrong, or lacks the scope."""


class NotFound(ApiError):
    """Nothing has that name or id."""


class Conflict(ApiError):
    """The state of the service forbids it."""


class LeaseLost(Conflict):
    """The rollout lease expired, was released, or belongs to another worker."""


class BatchExpired(Conflict):
    """The batch was not acknowledged in time; its problems went back to the pool."""


class NothingEligible(Conflict):
    """No problem of the curriculum can be drawn now; `members["shortfall"]` says why."""


class ScheduleComplete(Conflict):
    """Every stage of the curriculum's schedule is done."""


class Unavailable(ApiError):
    """The service is busy or broken; the call may be tried again."""


_BY_CODE: dict[str, type[ApiError]] = {
    "lease_lost": LeaseLost,
    "batch_expired": BatchExpired,
    "no_eligible_problems": NothingEligible,
    "schedule_complete": ScheduleComplete,
}
_BY_STATUS: dict[int, type[ApiError]] = {401: NotAllowed, 403: NotAllowed, 404: NotFound, 409: Conflict}


def api_error(status: int, body: dict[str, Any]) -> ApiError:
    """The exception for an error answer."""
    code = str(body.get("code", "unknown"))
    fallback = Unavailable if status == 429 or status >= 500 else BadRequest
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, fallback)
    detail = str(body.get("detail") or body.get("title") or f"the service answered HTTP {status}")
    return kind(status, code, detail, body)
