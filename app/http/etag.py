"""ETag on every JSON answer to a GET, and 304 for a client that has it already (pure ASGI)."""

import hashlib

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class EtagMiddleware:
    """Hashes the body of successful JSON answers to GET; streamed answers pass untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold back the start of the answer until its body is known."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        wanted = Headers(scope=scope).get("if-none-match", "")
        start: Message | None = None

        async def hold(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            if start is not None:
                message = _tagged(start, message, wanted)
                await send(start)
                start = None
            await send(message)

        await self.app(scope, receive, hold)


def _tagged(start: Message, message: Message, wanted: str) -> Message:
    headers = MutableHeaders(raw=start["headers"])
    is_json = headers.get("content-type", "").startswith("application/json")
    if start["status"] != 200 or message.get("more_body") or not is_json:
        return message
    tag = f'"{hashlib.blake2b(message.get("body", b""), digest_size=12).hexdigest()}"'
    headers["etag"] = tag
    if wanted.strip() == "*" or tag in {part.strip().removeprefix("W/") for part in wanted.split(",")}:
        start["status"] = 304
        del headers["content-length"]
        message = {"type": "http.response.body", "body": b""}
    start["headers"] = headers.raw
    return message
