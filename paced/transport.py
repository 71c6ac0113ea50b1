"""HTTP exchanges with the service, sync and async: authentication, pooled connections, retries, typed errors."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from pydantic import ValidationError

from paced import __version__
from paced.calls import Call
from paced.errors import NotAllowed, Unreachable, VersionMismatch, api_error
from paced.retrying import Outcome, Tries

T = TypeVar("T")
CONNECT_S = 10.0
UPLOAD_S = 3600.0  # for the pieces of a file, and for the report on a large one
VERSION_HEADER = "Paced-Version"
_CHUNK_BYTES = 1 << 20
_LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=4.0)
# what a service of another version says of a route, a field or a parameter that it does not know
_OF_OTHER_VERSION = frozenset(
    {"no_such_route", "method_not_allowed", "unknown_field", "unknown_parameter", "missing_field"}
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the service is and how long to try: `timeout_s` bounds one try, `retry_s` all of them (0: one try)."""

    url: str
    key: str | None
    timeout_s: float = 60.0
    retry_s: float = 120.0

    def options(self) -> dict[str, Any]:
        """For either HTTP client."""
        headers = {"User-Agent": f"paced/{__version__}"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        timeout = httpx2.Timeout(self.timeout_s, connect=min(CONNECT_S, self.timeout_s))
        return {"base_url": self.url, "headers": headers, "timeout": timeout, "limits": _LIMITS}


class Transport:
    """Sends calls until one is answered; threads may share it, and a forked process opens connections of its own."""

    def __init__(self, target: Target, http_transport: httpx2.BaseTransport | None = None) -> None:
        self.target = target
        self._given = http_transport
        self._open()

    def _open(self) -> None:
        self._owner = os.getpid()
        self._http = httpx2.Client(**self.target.options(), transport=self._given)

    def exchange(self, call: Call[T]) -> T:
        """Send one call and read its answer. Raises Unreachable, VersionMismatch and ApiError."""
        if self._owner != os.getpid():
            self._inherited = self._http  # kept, never used: closing it here would speak on the parent's connections
            self._open()
        tries = Tries(self.target.retry_s, time.monotonic)
        while True:
            outcome = self._try(call)
            wait_s = tries.wait_s(outcome)
            if wait_s is None:
                return answer(self.target, call, outcome)
            time.sleep(wait_s)

    def _try(self, call: Call[Any]) -> Outcome:
        content = _chunks(call.file) if call.file else call.body
        try:
            return self._http.request(call.method, call.path, content=content, **_arguments(call))
        except httpx2.TransportError as error:
            return error

    def close(self) -> None:
        """Close the pooled connections; those of a parent process stay open."""
        if self._owner == os.getpid():
            self._http.close()


class AsyncTransport:
    """The same for async code; one event loop, and forks open connections of their own."""

    def __init__(self, target: Target, http_transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self.target = target
        self._given = http_transport
        self._open()

    def _open(self) -> None:
        self._owner = os.getpid()
        self._http = httpx2.AsyncClient(**self.target.options(), transport=self._given)

    async def exchange(self, call: Call[T]) -> T:
        """Send one call and read its answer. Raises Unreachable, VersionMismatch and ApiError."""
        if self._owner != os.getpid():
            self._inherited = self._http
            self._open()
        tries = Tries(self.target.retry_s, time.monotonic)
        while True:
            outcome = await self._try(call)
            wait_s = tries.wait_s(outcome)
            if wait_s is None:
                return answer(self.target, call, outcome)
            await asyncio.sleep(wait_s)

    async def _try(self, call: Call[Any]) -> Outcome:
        content = _async_chunks(call.file) if call.file else call.body
        try:
            return await self._http.request(call.method, call.path, content=content, **_arguments(call))
        except httpx2.TransportError as error:
            return error

    async def close(self) -> None:
        """Close the pooled connections; those of a parent process stay open."""
        if self._owner == os.getpid():
            await self._http.aclose()


def _arguments(call: Call[Any]) -> dict[str, Any]:
    headers = {"Idempotency-Key": call.key} if call.key else {}
    if call.file:
        headers["Content-Type"] = "application/octet-stream"
        return {"params": call.query, "headers": headers, "timeout": httpx2.Timeout(UPLOAD_S, connect=CONNECT_S)}
    if call.body is not None:
        headers["Content-Type"] = "application/json"
    return {"params": call.query, "headers": headers}


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


async def _async_chunks(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
            yield chunk


def answer(target: Target, call: Call[T], outcome: Outcome) -> T:
    """What the last try of a call comes to."""
    url = target.url
    if isinstance(outcome, httpx2.TransportError):
        raise Unreachable(
            f"no answer from {url} ({type(outcome).__name__}: {outcome}). "
            "Is `paced serve` running there? `paced doctor` checks."
        ) from outcome
    theirs = outcome.headers.get(VERSION_HEADER)
    if outcome.is_success:
        try:
            return call.read(outcome.content)
        except ValidationError as error:
            raise VersionMismatch(url, call.method, call.path, theirs, _first(error)) from error
    refusal = api_error(outcome.status_code, _problem(outcome))
    if refusal.code in _OF_OTHER_VERSION and theirs is not None and not is_compatible(theirs):
        raise VersionMismatch(url, call.method, call.path, theirs, refusal.detail) from refusal
    if isinstance(refusal, NotAllowed) and not target.key:
        told = "this client has no key: give `key`, or set PACED_KEY"
        raise NotAllowed(refusal.status, refusal.code, f"{refusal.detail}; {told}", refusal.members)
    raise refusal


def is_compatible(theirs: str, ours: str = __version__) -> bool:
    """Whether a service and a client keep the same contract: the same major version, below 1.0 the same minor one."""
    (major, minor), (our_major, our_minor) = ([*version.split("."), "0"][:2] for version in (theirs, ours))
    return major == our_major and (major != "0" or minor == our_minor)


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the body'}: {first['msg']}"


def _problem(response: httpx2.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {"detail": f"the service answered HTTP {response.status_code}: {response.text[:200]!r}"}
    return body if isinstance(body, dict) else {}
