"""What the service refuses, as exceptions that carry their HTTP status and stable code.

AppError
├── Invalid         422  the request contradicts itself or the data
├── NotFound        404  nothing has that name or id
├── Conflict        409  the state forbids it (each with a code of its own)
├── Unauthenticated 401  no key, or a wrong one
├── Forbidden       403  the key lacks the scope
├── TooLarge        413  the body is over the limit
└── Busy            503  try again later
"""

from typing import Any


class AppError(Exception):
    """An error that a caller can act on; `detail` says what happened, where, and what to do next."""

    status = 500
    code = "internal"
    title = "Internal error"

    def __init__(
        self, detail: str, *, code: str | None = None, retry_after_s: float | None = None, **members: Any
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.retry_after_s = retry_after_s
        self.members = members


class Invalid(AppError):
    """The request contradicts itself or the data."""

    status, code, title = 422, "invalid_request", "Invalid request"


class NotFound(AppError):
    """Nothing has that name or id."""

    status, code, title = 404, "not_found", "Not found"


class Conflict(AppError):
    """The state forbids it."""

    status, code, title = 409, "conflict", "Conflict"


class Unauthenticated(AppError):
    """No key, or a wrong one."""

    status, code, title = 401, "unauthenticated", "Key missing or wrong"


class Forbidden(AppError):
    """The key lacks the scope."""

    status, code, title = 403, "forbidden", "Scope missing"


class TooLarge(AppError):
    """The body is over the limit."""

    status, code, title = 413, "body_too_large", "Body too large"


class Busy(AppError):
    """The service cannot do it now."""

    status, code, title = 503, "busy", "Try again later"
