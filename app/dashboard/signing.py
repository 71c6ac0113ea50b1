"""Signing in by a link that works once or by pasting a key, and signing out."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from app.auth.guard import SIGN_IN
from app.auth.sessions import SESSION_FOR, SessionService
from app.dashboard.forms import Nothing, fields_of, posted
from app.dashboard.rendering import render
from app.errors import Unauthenticated
from paced.wire import Key, Scope

router = APIRouter(include_in_schema=False)
HOME = "/overview"


@router.get(SIGN_IN)
async def ask(request: Request, next: str = HOME) -> Response:  # noqa: A002 - the name in the address
    """A form for a key."""
    return render(request, "sign_in.html", next=next, link=None, fault=None)


@router.get(SIGN_IN + "/{link}")
async def offer(request: Request, link: str) -> Response:
    """A button that uses a link up: programs that only look at addresses do not."""
    return render(request, "sign_in.html", next=HOME, link=link, fault=None)


@router.post(SIGN_IN)
async def enter(request: Request) -> Response:
    """Open a session with a key or a link."""
    fields: dict[str, Any] = {"next": HOME, **await fields_of(request)}
    sessions: SessionService = request.app.state.sessions
    try:
        if "link" in fields:
            key = await sessions.redeem(str(fields["link"]))
        else:
            key = await request.app.state.keys.of_secret(str(fields.get("key", "")).strip())
    except Unauthenticated as error:
        return render(request, "sign_in.html", status=401, next=fields["next"], link=None, fault=error.detail)
    return _entered(request, key, str(fields["next"]))


def _entered(request: Request, key: Key, wanted: str) -> Response:
    sessions: SessionService = request.app.state.sessions
    answer = RedirectResponse(_own(wanted), 303)
    answer.set_cookie(
        sessions.cookie,
        sessions.opened(key),
        max_age=int(SESSION_FOR.total_seconds()),
        httponly=True,
        secure=request.url.scheme == "https",
        samesite="lax",  # `strict` would greet whoever follows a link in a chat or a mail as a stranger
    )
    return answer


def _own(address: str) -> str:
    """The address if it is one of ours: it came with the request."""
    is_own = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_own else HOME


@router.post("/sign-out")
async def leave(request: Request, _form: Annotated[Any, posted(Nothing, Scope.READ)]) -> Response:
    """Forget the session in this browser."""
    answer = RedirectResponse(SIGN_IN, 303)
    answer.delete_cookie(request.app.state.sessions.cookie)
    return answer
