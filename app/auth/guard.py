"""Authentication as middleware (every path but the public ones) and scopes as a dependency."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from app.errors import AppError, Forbidden
from app.http.problem_json import from_error
from paced.wire import Scope

SIGN_IN = "/sign-in"
BEARER = HTTPBearer(auto_error=False, description="An API key; `paced keys create` makes one")  # for the document
PUBLIC_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json", SIGN_IN})
PUBLIC_FOLDERS = (f"{SIGN_IN}/", "/static/")


class AuthMiddleware:
    """Answers 401 before the body is read, whatever the route; sends browsers to where they sign in.

    `/v1` and `/metrics` take keys alone: a cookie, which browsers add to requests of other sites, means nothing there.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Put the key's scopes into the request state, and the session, if there is one."""
        if scope["type"] != "http" or scope["path"] in PUBLIC_PATHS or scope["path"].startswith(PUBLIC_FOLDERS):
            await self.app(scope, receive, send)
            return
        request, state = HTTPConnection(scope), scope["app"].state
        session = None if is_for_keys(request) else await state.sessions.of_cookies(request.cookies)
        if session is None and is_page(request):
            await RedirectResponse(sign_in_url(request), 303)(scope, receive, send)
            return
        try:
            key = await state.keys.of_header(request.headers.get("authorization")) if session is None else session.key
        except AppError as error:
            await from_error(error)(scope, receive, send)
            return
        scope.setdefault("state", {}).update(session=session, scopes=frozenset(key.scopes), key=key)
        await self.app(scope, receive, send)


def is_for_keys(request: HTTPConnection) -> bool:
    """Whether only the Authorization header counts."""
    path = request.url.path
    return path.startswith("/v1/") or path in {"/v1", "/metrics"} or "authorization" in request.headers


def is_page(request: HTTPConnection) -> bool:
    """Whether a browser asks for a page to show."""
    return not is_for_keys(request) and "text/html" in request.headers.get("accept", "")


def sign_in_url(request: HTTPConnection) -> str:
    """Where to sign in, and to come back from."""
    back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return SIGN_IN if back == "/" or request.scope["method"] != "GET" else f"{SIGN_IN}?{urlencode({'next': back})}"


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
