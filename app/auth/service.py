"""Making and checking keys: `paced.<key id>.<secret>`, stored as HMAC-SHA256 under the service's pepper."""

import datetime as dt
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from app.auth.store import KeyStore
from app.clock import Clock
from app.errors import NotFound, Unauthenticated
from app.ids import new_id
from paced.wire import Key, KeyCreate, KeyCreated, Scope

CACHE_SIZE = 1024
CACHE_FOR = dt.timedelta(seconds=30)


class KeyService:
    """Keys of one service; a key revoked in another process is refused here within CACHE_FOR."""

    def __init__(self, store: KeyStore, pepper: str, clock: Clock) -> None:
        self._store = store
        self._pepper = pepper.encode()
        self._clock = clock
        self._known: dict[str, tuple[str, Key, dt.datetime]] = {}

    def _hash(self, secret: str) -> str:
        return hmac.new(self._pepper, secret.encode(), hashlib.sha256).hexdigest()

    def sign(self, purpose: str, text: str) -> str:
        """What only processes with the pepper can make of a text, for one purpose."""
        return self._hash(f"{purpose}\x00{text}")

    def _key_id(self, secret: str) -> str:
        parts = secret.split(".")
        if len(parts) == 3 and parts[0] == "paced":
            return parts[1]
        # one chosen by the operator holds no id; another pepper gives another, so no stored hash goes stale
        return f"key_{self._hash(secret)[:12]}"

    async def create(self, body: KeyCreate) -> KeyCreated:
        """Make a key and return its secret, once."""
        key = Key(key_id=new_id("key"), name=body.name, scopes=body.scopes, created_at=self._clock())
        secret = f"paced.{key.key_id}.{secrets.token_urlsafe(32)}"
        await self._store.add(key, self._hash(secret))
        return KeyCreated(**key.model_dump(), secret=secret)

    async def accept(self, secret: str, name: str) -> Key:
        """Accept a secret chosen by the operator, as an admin key."""
        key = Key(key_id=self._key_id(secret), name=name, scopes=[Scope.ADMIN], created_at=self._clock())
        await self._store.add(key, self._hash(secret))
        return key

    async def of_header(self, authorization: str | None) -> Key:
        """The key that an Authorization header holds; raises Unauthenticated."""
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret:
            raise Unauthenticated("send a key as `Authorization: Bearer KEY`; `paced keys create` makes one")
        return await self.of_secret(secret.strip())

    async def of_secret(self, secret: str) -> Key:
        """The key with this secret; raises Unauthenticated."""
        found = await self._found(self._key_id(secret))
        if found is None or not hmac.compare_digest(found[0], self._hash(secret)):
            raise Unauthenticated("this key is unknown or revoked; `paced keys create` makes a new one")
        return found[1]

    async def in_use(self, key_id: str) -> Key | None:
        """A key that is not revoked."""
        found = await self._found(key_id)
        return None if found is None else found[1]

    async def _found(self, key_id: str) -> tuple[str, Key, dt.datetime] | None:
        known = self._known.get(key_id)
        if known is not None and self._clock() - known[2] <= CACHE_FOR:
            return known
        self._known.pop(key_id, None)
        found = await self._store.get(key_id)
        if found is None:
            return None
        if len(self._known) >= CACHE_SIZE:
            self._known.clear()
        self._known[key_id] = (*found, self._clock())
        return self._known[key_id]

    async def all(self) -> list[Key]:
        """Keys in use."""
        return await self._store.all()

    async def revoke(self, key_id: str) -> None:
        """Make a key useless; NotFound when there is none."""
        is_found = await self._store.revoke(key_id)
        self._known.pop(key_id, None)
        if not is_found:
            raise NotFound(f"there is no key {key_id!r} in use; `paced keys list` shows them")


def private_text(path: Path, made: str) -> str:
    """The text of a file that only its owner may read; written with `made` when it is not there."""
    if path.exists():
        return path.read_text().strip()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(made + "\n")
    try:
        os.link(draft, path)  # fails if another process was first
    except FileExistsError:
        return path.read_text().strip()
    finally:
        draft.unlink()
    return made
