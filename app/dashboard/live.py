"""`/live`: server-sent events that name what changed, at most once a second; pages then fetch themselves again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson
from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from app.auth.guard import requires
from app.dashboard.store import LiveStore
from app.errors import Busy
from paced.wire import Scope

router = APIRouter(include_in_schema=False)
EVERY_S = 1.0
KEPT_ALIVE_S = 15.0  # proxies close what is silent for long
LONGEST_S = 600.0  # a browser comes back by itself, with the key that it has then
Versions = dict[str, str]


class Pulse:
    """Asks the database once a second for all streams of this process together, and not while there are none."""

    def __init__(self, store: LiveStore) -> None:
        self._store = store
        self._asked_at = float("-inf")
        self._known: Versions = {}
        self._turn = asyncio.Lock()
        self._closing = asyncio.Event()

    async def versions(self) -> Versions:
        """What the topics are at, at most EVERY_S old."""
        async with self._turn:
            now = asyncio.get_running_loop().time()
            if now - self._asked_at >= EVERY_S:
                self._known = await self._store.versions()
                self._asked_at = now
            return self._known

    def close(self) -> None:
        """End every stream."""
        self._closing.set()

    async def is_closed_after(self, seconds: float) -> bool:
        """Wait, and say whether streams shall end."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)
        return self._closing.is_set()

    async def events(self, seen: Versions | None) -> AsyncIterator[bytes]:
        """Events after what a browser has seen; without it, after what there is now."""
        loop = asyncio.get_running_loop()
        over, spoke_at = loop.time() + LONGEST_S, loop.time()
        seen = await self.versions() if seen is None else seen
        yield _event(seen, [])
        while loop.time() < over:
            try:
                now = await self.versions()
            except Busy:
                now = seen  # a database that is away for a while is no change
            changed = [topic for topic, version in now.items() if seen.get(topic) != version]
            if changed:
                yield _event(now, changed)
            elif loop.time() - spoke_at > KEPT_ALIVE_S:
                yield b":\n\n"
            spoke_at = loop.time() if changed or loop.time() - spoke_at > KEPT_ALIVE_S else spoke_at
            seen = now
            if await self.is_closed_after(EVERY_S):
                return


def _event(versions: Versions, changed: list[str]) -> bytes:
    """The id holds what was seen, so that a browser that comes back to any process misses nothing."""
    name = "changed" if changed else "ready"
    return f"id: {urlencode(versions)}\nevent: {name}\ndata: {orjson.dumps(changed).decode()}\n\n".encode()


@router.get("/live", dependencies=[requires(Scope.READ)])
async def live(request: Request, last: str | None = None) -> StreamingResponse:
    """The stream; `last` is Last-Event-ID for a page that closed its stream while it was hidden."""
    pulse: Pulse = request.app.state.pulse
    given = request.headers.get("last-event-id", last)
    seen: Any = None if given is None else dict(parse_qsl(given, keep_blank_values=True))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(pulse.events(seen), media_type="text/event-stream", headers=headers)
