"""The two clients, `Client` and `AsyncClient`: every route of `paced.routes` as a method, wire models in and out."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2
from pydantic import BaseModel

from paced import wire
from paced.calls import Call, Pages
from paced.routes import Routes
from paced.texts import Texts
from paced.transport import AsyncTransport, Target, Transport

DEFAULT_URL = "http://127.0.0.1:8420"
M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class _Connected(Routes):
    """What both clients say of themselves."""

    _transport: Transport | AsyncTransport

    @property
    def url(self) -> str:
        """Where the service is."""
        return self._transport.target.url

    @property
    def key(self) -> str | None:
        """The API key in use."""
        return self._transport.target.key


class Client(_Connected):
    """Talks to one service; use it as a context manager, share it between threads, take it into worker processes.

    `url` falls back to PACED_URL, `key` to PACED_KEY, then to the first admin key of a service on this machine
    (`admin.key` in PACED_DATA, or in ./data). `timeout_s` bounds one try, `retry_s` all tries of a call (0: one try).
    `texts` is a file in which `with_texts` keeps problem texts for the next process. Calls raise the errors of
    `paced.errors`.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retry_s: float = 120.0,
        texts: Path | None = None,
        http_transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._transport: Transport = Transport(_target(url, key, timeout_s, retry_s), http_transport)
        self._texts = Texts(texts)
        self._http_transport = http_transport

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """A spawned process gets a client of its own for the same service."""
        return _client, (self._transport.target, self._texts.file, self._http_transport)

    def close(self) -> None:
        """Close the pooled connections."""
        self._transport.close()
        self._texts.close()

    def send(self, call: Call[T]) -> T:
        """The answer to a call."""
        return self._transport.exchange(call)

    def every(self, pages: Pages[M]) -> Iterator[M]:
        """The items of all pages; each page is asked for when it is needed."""
        cursor: str | None = None
        while True:
            page = self.send(pages.page(cursor))
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return

    def with_texts(self, batch: wire.Batch) -> wire.Batch:
        """A batch drawn with `include="ids"`, with its texts: kept ones by their ETags, the others asked for once."""
        asked = self._texts.unknown(batch)
        if asked is not None:
            self._texts.keep(batch.curriculum_id, asked, self.problem_texts(asked))
        return self._texts.filled(batch)


class AsyncClient(_Connected):
    """The same for async code: methods are awaited, lists iterated with `async for`; bound to one event loop."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retry_s: float = 120.0,
        texts: Path | None = None,
        http_transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._transport: AsyncTransport = AsyncTransport(_target(url, key, timeout_s, retry_s), http_transport)
        self._texts = Texts(texts)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._transport.close()
        self._texts.close()

    async def send(self, call: Call[T]) -> T:
        """The answer to a call."""
        return await self._transport.exchange(call)

    async def every(self, pages: Pages[M]) -> AsyncIterator[M]:
        """The items of all pages; each page is asked for when it is needed."""
        cursor: str | None = None
        while True:
            page = await self.send(pages.page(cursor))
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    async def with_texts(self, batch: wire.Batch) -> wire.Batch:
        """A batch drawn with `include="ids"`, with its texts: kept ones by their ETags, the others asked for once."""
        asked = self._texts.unknown(batch)
        if asked is not None:
            self._texts.keep(batch.curriculum_id, asked, await self.problem_texts(asked))
        return self._texts.filled(batch)


def _client(target: Target, texts: Path | None, http_transport: httpx2.BaseTransport | None) -> Client:
    tries = {"timeout_s": target.timeout_s, "retry_s": target.retry_s}
    return Client(target.url, target.key, **tries, texts=texts, http_transport=http_transport)


def _target(url: str | None, key: str | None, timeout_s: float, retry_s: float) -> Target:
    where = (url or os.environ.get("PACED_URL", DEFAULT_URL)).rstrip("/")
    if not where.startswith(("http://", "https://")):
        raise ValueError(f"the service's address begins with http:// or https://, which {where!r} does not")
    return Target(where, key or os.environ.get("PACED_KEY") or _local_key(where), timeout_s, retry_s)


def _local_key(url: str) -> str | None:
    file = Path(os.environ.get("PACED_DATA", "data")) / "admin.key"
    is_local = httpx2.URL(url).host in {"127.0.0.1", "localhost", "::1"}
    return file.read_text().strip() if is_local and os.access(file, os.R_OK) else None
