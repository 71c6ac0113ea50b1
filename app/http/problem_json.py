"""Every error leaves as application/problem+json (RFC 9457) with a stable code."""

from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.errors import AppError, NotFound

log = structlog.get_logger()
MEDIA_TYPE = "application/problem+json"


def problem(
    status: int, code: str, title: str, detail: str, headers: dict[str, str] | None = None, **members: Any
) -> Response:
    """One problem detail as a response."""
    body = {"type": f"urn:paced:error:{code}", "title": title, "status": status, "detail": detail, "code": code}
    content = orjson.dumps({**body, **members}, default=str)
    return Response(content, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def from_error(error: AppError) -> Response:
    """The response for one of our own errors."""
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="paced"'
    return problem(error.status, error.code, error.title, error.detail, headers, **error.members)


def _field_errors(errors: Any) -> tuple[str, list[dict[str, str]]]:
    found = [
        {"where": ".".join(str(part) for part in error["loc"]), "what": _plain(error["msg"])}
        for error in list(errors)[:20]
    ]
    return "; ".join(f"{error['where']}: {error['what']}" for error in found[:5]), found


def _plain(message: str) -> str:
    return message.encode("utf-8", "replace").decode()  # a message may quote a lone surrogate


def install(app: FastAPI) -> None:
    """Register the handlers."""

    @app.exception_handler(AppError)
    async def _ours(_request: Request, error: AppError) -> Response:
        return from_error(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> Response:
        detail, found = _field_errors(error.errors())
        is_broken = any(item["type"] == "json_invalid" for item in error.errors())
        code, title = ("bad_json", "The body is not JSON") if is_broken else ("validation_failed", "Invalid request")
        return problem(422, code, title, detail, errors=found)

    @app.exception_handler(HTTPException)
    async def _starlette(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return from_error(NotFound(f"there is no route {request.method} {request.url.path}", code="no_such_route"))
        codes = {405: "method_not_allowed", 400: "bad_request"}
        code = codes.get(error.status_code, "http_error")
        return problem(error.status_code, code, str(error.detail), str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> Response:
        log.error("unexpected_error", path=request.url.path, exc_info=error)
        detail = "the service met an error of its own; its log has the trace"
        if isinstance(error, ValidationError):
            detail = "the service made an answer that breaks its own contract; its log has the trace"
        return problem(500, "internal", "Internal error", detail)
