"""Every answer says which version gave it, so that a client of another one can name the difference (pure ASGI)."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from paced import __version__
from paced.transport import VERSION_HEADER


class VersionMiddleware:
    """Adds the header to every answer, those of the middleware inside included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add one header."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                header = (VERSION_HEADER.lower().encode(), __version__.encode())
                message = {**message, "headers": [*message.get("headers", []), header]}
            await send(message)

        await self.app(scope, receive, tell)
