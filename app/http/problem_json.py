"""Every error leaves as application/problem+json (RFC 9457) with a stable code."""

from collections.abc import Sequence
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from app.errors import AppError, NotFound

log = structlog.get_logger()
MEDIA_TYPE = "application/problem+json"
# kind of a field's fault, as Pydantic names it -> our code; others are `validation_failed`
FIELD_CODES = {
    "json_invalid": "bad_json",
    "extra_forbidden": "unknown_field",
    "missing": "missing_field",
    "finite_number": "not_finite",
    **dict.fromkeys(("greater_than", "greater_than_equal", "less_than", "less_than_equal"), "out_of_range"),
    **dict.fromkeys(("too_short", "too_long", "string_too_short", "string_too_long"), "out_of_range"),
    "int_parsing_size": "out_of_range",
    "open_stage_inside": "open_stage_inside",
}


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


def _invalid(request: Request, errors: Sequence[Any]) -> Response:
    """The response for a request that breaks its model; the first fault gives the code."""
    is_whole_body = len(errors) == 1 and tuple(errors[0]["loc"]) == ("body",) and errors[0]["type"] != "missing"
    if is_whole_body and not _is_json(request.headers.get("content-type", "")):
        detail = "the body is not declared as JSON; send it with `Content-Type: application/json`"
        return problem(415, "unsupported_media_type", "Unsupported media type", detail)
    found = [
        {
            "where": _plain(".".join(str(part) for part in error["loc"])),
            "what": _plain(error["msg"]),
            "code": _code_of(error),
        }
        for error in errors[:20]
    ]
    detail = "; ".join(f"{fault['where']}: {fault['what']}" for fault in found[:5])
    return problem(422, found[0]["code"], "Invalid request", detail, errors=found)


def _code_of(error: Any) -> str:
    if error["type"] == "extra_forbidden" and error["loc"][0] == "query":
        return "unknown_parameter"
    return FIELD_CODES.get(error["type"], "validation_failed")


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


def _plain(message: str) -> str:
    return message.encode("utf-8", "replace").decode()  # a message or a field's name may hold a lone surrogate


def install(app: FastAPI) -> None:
    """Register the handlers."""

    @app.exception_handler(AppError)
    async def _ours(_request: Request, error: AppError) -> Response:
        return from_error(error)

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        return _invalid(request, error.errors())

    @app.exception_handler(ClientDisconnect)
    async def _gone(_request: Request, _error: ClientDisconnect) -> Response:
        return problem(400, "client_gone", "Client gone", "the connection closed before the body was whole")

    @app.exception_handler(HTTPException)
    async def _starlette(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return from_error(NotFound(f"there is no route {request.method} {request.url.path}", code="no_such_route"))
        if error.status_code == 400:  # FastAPI's word for a body that it could not read at all
            return problem(422, "bad_json", "Invalid request", "the body is not JSON in UTF-8")
        code = "method_not_allowed" if error.status_code == 405 else "http_error"
        return problem(error.status_code, code, str(error.detail), str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> Response:
        log.error("unexpected_error", path=request.url.path, exc_info=error)
        detail = "the service met an error of its own; its log has the trace"
        if isinstance(error, ValidationError):
            detail = "the service made an answer that breaks its own contract; its log has the trace"
        return problem(500, "internal", "Internal error", detail)
