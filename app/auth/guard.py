"""Authentication as middleware (every path but the public ones) and scopes as a dependency."""

from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from app.auth.service import KeyService
from app.errors import AppError, Forbidden
from app.http.problem_json import from_error
from paced.wire import Scope

BEARER = HTTPBearer(auto_error=False, description="An API key; `paced keys create` makes one")  # for the document
PUBLIC_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json"})


class AuthMiddleware:
    """Answers 401 before the body is read, whatever the route."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Put the key's scopes into the request state."""
        if scope["type"] != "http" or scope["path"] in PUBLIC_PATHS:
            await self.app(scope, receive, send)
            return
        keys: KeyService = scope["app"].state.keys
        try:
            scopes = await keys.scopes_of(Headers(scope=scope).get("authorization"))
        except AppError as error:
            await from_error(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["scopes"] = scopes
        await self.app(scope, receive, send)


def requires(needed: Scope) -> Any:
    """A dependency that lets pass only keys with this scope (admin has all)."""

    async def check(request: Request, _key: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> None:
        scopes: frozenset[Scope] = request.state.scopes
        if needed not in scopes and Scope.ADMIN not in scopes:
            raise Forbidden(
                f"this key lacks the scope '{needed}'; make one with `paced keys create NAME --scope {needed}`",
                scope=needed.value,
            )

    return Depends(check)
