"""The service inside the caller's process, for tests of trainers: no port, no server, the same answers.

`with in_process(create_app(settings)) as service, Client("http://service", key, http_transport=service) as client:`
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx2

T = TypeVar("T")
Event = MutableMapping[str, Any]
App = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]
]


class InProcess(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """Answers the requests of `Client` and `AsyncClient` from an ASGI application; several clients may share it."""

    def __init__(self, app: App, loop: asyncio.AbstractEventLoop) -> None:
        self._asgi = httpx2.ASGITransport(app, raise_app_exceptions=False)
        self._loop = loop

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request of the sync client."""
        return asyncio.run_coroutine_threadsafe(self._answer(request, request.read()), self._loop).result()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Answer a request of the async client, whose event loop is another one."""
        answer = self._answer(request, await request.aread())
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(answer, self._loop))

    async def _answer(self, request: httpx2.Request, body: bytes) -> httpx2.Response:
        copy = httpx2.Request(request.method, request.url, headers=request.headers, content=body)
        answered = await self._asgi.handle_async_request(copy)
        return httpx2.Response(answered.status_code, headers=answered.headers, content=await answered.aread())


@contextmanager
def in_process(app: App) -> Iterator[InProcess]:
    """Start an ASGI application on an event loop in a thread of its own, and stop it at the end of the block.

    Raises RuntimeError when it does not start.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="paced-in-process", daemon=True)
    thread.start()
    lifespan = _Lifespan(app)
    try:
        _run(loop, lifespan.start())
        try:
            yield InProcess(app, loop)
        finally:
            _run(loop, lifespan.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, loop).result()


class _Lifespan:
    """Start and stop of an application, as the ASGI specification has them."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._to_app: asyncio.Queue[Event] = asyncio.Queue()
        self._from_app: asyncio.Queue[Event] = asyncio.Queue()

    async def start(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        self._task = asyncio.ensure_future(self._app(scope, self._to_app.get, self._from_app.put))
        await self._said("lifespan.startup")

    async def stop(self) -> None:
        await self._said("lifespan.shutdown")
        await self._task

    async def _said(self, what: str) -> None:
        await self._to_app.put({"type": what})
        answer = asyncio.ensure_future(self._from_app.get())
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            self._task.result()
            raise RuntimeError(f"the application ended before it answered {what}")
        if answer.result()["type"].endswith("failed"):
            raise RuntimeError(f"the application did not start or stop: {answer.result().get('message')}")
