"""Errors as pages for browsers; everything else goes on getting problem+json."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import FastAPI, Request
from starlette.responses import Response

from app.auth.guard import is_page
from app.dashboard.rendering import render

Handler = Callable[[Request, Any], Awaitable[Response]]


def install(app: FastAPI) -> None:
    """Wrap the handlers that are there."""
    for kind, handler in list(app.exception_handlers.items()):
        app.exception_handlers[kind] = _for_browsers(handler)  # type: ignore[arg-type]


def _for_browsers(handler: Handler) -> Handler:
    async def handle(request: Request, error: Any) -> Response:
        answer = await handler(request, error)
        if not is_page(request) or not answer.headers["content-type"].startswith("application/problem+json"):
            return answer
        problem = orjson.loads(bytes(answer.body))
        return render(request, "error.html", status=answer.status_code, problem=problem)

    return handle
