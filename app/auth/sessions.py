"""Browsers sign in with a key, or with a link that works once; a signed cookie stands for the key from then on.

The cookie holds key id, expiry and a random text under a signature, and no secret: every API process with the same
pepper reads it, and what the key may do is looked up at each request, so that a revoked key ends its sessions.
"""

import datetime as dt
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from app.auth.service import KeyService
from app.auth.store import KeyStore
from app.clock import Clock
from app.errors import Forbidden, Unauthenticated
from paced.wire import Key, Scope

SESSION_FOR = dt.timedelta(days=7)
LINK_FOR = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that is signed in. `csrf` stands in each form, and nowhere that another site could read."""

    key: Key
    csrf: str

    def may(self, needed: Scope) -> bool:
        """Whether its key has a scope (admin has all)."""
        return needed in self.key.scopes or Scope.ADMIN in self.key.scopes


class SessionService:
    """Sessions of one service, the same in all its processes."""

    def __init__(self, keys: KeyService, store: KeyStore, clock: Clock) -> None:
        self._keys = keys
        self._store = store
        self._clock = clock
        # browsers share cookies between the ports of a host: services of different peppers keep theirs apart
        self.cookie = f"paced_{keys.sign('cookie', '')[:8]}"

    def opened(self, key: Key) -> str:
        """The cookie's value for a new session of a key."""
        expires = int((self._clock() + SESSION_FOR).timestamp())
        text = f"{key.key_id}.{expires}.{secrets.token_urlsafe(16)}"
        return f"{text}.{self._keys.sign('session', text)}"

    async def of_cookies(self, cookies: Mapping[str, str]) -> Session | None:
        """The session of a request, if it holds one that is signed, not over, and of a key in use."""
        text, _, signature = cookies.get(self.cookie, "").rpartition(".")
        if not text or not hmac.compare_digest(self._keys.sign("session", text).encode(), signature.encode()):
            return None
        key_id, expires, _ = text.split(".")
        if int(expires) <= self._clock().timestamp():
            return None
        key = await self._keys.in_use(key_id)
        return None if key is None else Session(key, self._keys.sign("csrf", text))

    async def link(self, key: Key) -> tuple[str, dt.datetime]:
        """A text that opens one session of a key, and until when."""
        text, now = secrets.token_urlsafe(32), self._clock()
        await self._store.add_link(self._keys.sign("link", text), key.key_id, now + LINK_FOR, now)
        return text, now + LINK_FOR

    async def redeem(self, text: str) -> Key:
        """The key of a link; raises Unauthenticated when it was used, or is too old."""
        key_id = await self._store.take_link(self._keys.sign("link", text), self._clock())
        key = None if key_id is None else await self._keys.in_use(key_id)
        if key is None:
            raise Unauthenticated("this link was used, or is over an hour old; `paced dashboard` makes a new one")
        return key


def check_csrf(session: Session | None, given: str) -> None:
    """Refuse a form that did not come from a page of this session."""
    if session is None or not hmac.compare_digest(session.csrf.encode(), given.encode()):
        raise Forbidden("this form is not of your session; load its page again and send it from there", code="csrf")
