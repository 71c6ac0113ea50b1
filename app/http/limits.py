"""Bodies over the limit are refused with 413 before they are held in memory (pure ASGI)."""

import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import TooLarge
from app.http.problem_json import from_error

MB = 1_000_000
IMPORTS = re.compile(r"/v1/problem-sets/[^/]+/imports")


class BodyLimitMiddleware:
    """Counts body bytes; only the import route takes whole files."""

    def __init__(self, app: ASGIApp, max_body_mb: float, max_import_mb: float) -> None:
        self.app = app
        self.max_body_mb = max_body_mb
        self.max_import_mb = max_import_mb

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse by Content-Length at once, or when the bytes of a chunked body pass the limit."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit_mb = self.max_import_mb if IMPORTS.fullmatch(scope["path"]) else self.max_body_mb
        error = TooLarge(f"the body is over the limit of {limit_mb:g} MB; send it in parts", limit_mb=limit_mb)
        if int(Headers(scope=scope).get("content-length") or 0) > limit_mb * MB:
            await from_error(error)(scope, receive, send)
            return
        n_bytes = 0

        async def counted() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > limit_mb * MB:
                raise error
            return message

        async def unless_over(message: Message) -> None:
            # whatever reads the body may answer the error with one of its own
            if n_bytes <= limit_mb * MB:
                await send(message)

        await self.app(scope, counted, unless_over)
        if n_bytes > limit_mb * MB:
            await from_error(error)(scope, receive, send)
