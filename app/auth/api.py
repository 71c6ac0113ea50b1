"""Routes of API keys."""

from typing import Annotated, cast

from fastapi import APIRouter, Query, Request

from app.auth.guard import SIGN_IN, requires
from app.auth.service import KeyService
from app.auth.sessions import SessionService
from app.http.pages import NoQuery
from paced.wire import Key, KeyCreate, KeyCreated, Page, Scope, SignInLink

router = APIRouter(prefix="/v1/keys", tags=["keys"], dependencies=[requires(Scope.ADMIN)])


def _keys(request: Request) -> KeyService:
    return cast("KeyService", request.app.state.keys)


links_router = APIRouter(prefix="/v1/sign-in-links", tags=["keys"], dependencies=[requires(Scope.READ)])


@links_router.post("", status_code=201, operation_id="create_sign_in_link")
async def create_link(request: Request, _query: Annotated[NoQuery, Query()]) -> SignInLink:
    """Make a link that signs a browser in to the dashboard once, with what this key may do."""
    sessions: SessionService = request.app.state.sessions
    text, expires_at = await sessions.link(request.state.key)
    return SignInLink(path=f"{SIGN_IN}/{text}", expires_at=expires_at)


@router.post("", status_code=201, operation_id="create_key")
async def create(request: Request, body: KeyCreate, _query: Annotated[NoQuery, Query()]) -> KeyCreated:
    """Make a key; its secret is in this answer only."""
    return await _keys(request).create(body)


@router.get("", operation_id="list_keys")
async def listed(request: Request, _query: Annotated[NoQuery, Query()]) -> Page[Key]:
    """Keys in use, without secrets."""
    return Page(items=await _keys(request).all())


@router.delete("/{key_id}", status_code=204, operation_id="revoke_key")
async def revoke(request: Request, key_id: str, _query: Annotated[NoQuery, Query()]) -> None:
    """Make a key useless."""
    await _keys(request).revoke(key_id)
