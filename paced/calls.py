"""A route as a value: what is sent and how the answer is read; and what makes it a method of both clients.

A route is written once, as a method that builds a `Call` or `Pages`. The decorators `route` and `listed` turn it into a
method that `Client` answers at once and `AsyncClient` when awaited.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload
from urllib.parse import quote

from pydantic import BaseModel

from paced.wire import Page

if TYPE_CHECKING:
    from paced.client import AsyncClient, Client

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request; `read` makes its answer of the body. A `file` is sent as it is, from its beginning at each try."""

    method: str
    path: str
    read: Callable[[bytes], T]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: bytes | None = None
    file: Path | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Pages(Generic[M]):
    """A list that is read page by page."""

    path: str
    item: type[M]
    query: Mapping[str, Any] = field(default_factory=dict)

    def page(self, cursor: str | None) -> Call[Page[M]]:
        """The call for the page at a cursor, the first one at None."""
        model: type[Page[M]] = Page[self.item]  # type: ignore[name-defined]
        return Call("GET", self.path, model.model_validate_json, present({**self.query, "cursor": cursor}))


def get(path: str, model: type[M], **query: Any) -> Call[M]:
    """Read a resource."""
    return Call("GET", path, model.model_validate_json, present(query))


def post(path: str, body: BaseModel, model: type[M], key: str | None = None) -> Call[M]:
    """Send a body and read the answer; the Idempotency-Key makes it safe to send again."""
    return send("POST", path, body, model.model_validate_json, key)


def patch(path: str, body: BaseModel, model: type[M]) -> Call[M]:
    """Change a resource."""
    return send("PATCH", path, body, model.model_validate_json)


def send(method: str, path: str, body: BaseModel, read: Callable[[bytes], T], key: str | None = None) -> Call[T]:
    """Send a body, without the fields that were left out; every call has a key of its own unless one is given.

    Raises TypeError when the body is no model.
    """
    if not isinstance(body, BaseModel):
        raise TypeError(f"{method} {path} takes a model of paced.wire as its body, not {body!r:.100}")
    content = body.model_dump_json(exclude_none=True).encode()
    return Call(method, path, read, body=content, key=key or uuid.uuid4().hex)


def nothing(_body: bytes) -> None:
    """For routes whose answer says nothing."""


def at(template: str, *parts: object) -> str:
    """A path with names and ids in the place of each `{}`."""
    return template.format(*(quote(str(part), safe="") for part in parts))


def present(query: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that were given."""
    return {name: value for name, value in query.items() if value is not None}


class route(Generic[P, T]):  # noqa: N801 - used as a decorator
    """Makes a method of a builder of calls."""

    def __init__(self, build: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self._build = build

    @overload
    def __get__(self, client: None, owner: Any = None) -> Callable[Concatenate[Any, P], Call[T]]: ...
    @overload
    def __get__(self, client: Client, owner: Any = None) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: Any = None) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: Any = None) -> Any:
        """The method of a client; the builder itself where there is none."""
        return self._build if client is None else _method(client, self._build, client.send)


class listed(Generic[P, M]):  # noqa: N801 - used as a decorator
    """Makes an iterating method of a builder of pages."""

    def __init__(self, build: Callable[Concatenate[Any, P], Pages[M]]) -> None:
        self._build = build

    @overload
    def __get__(self, client: None, owner: Any = None) -> Callable[Concatenate[Any, P], Pages[M]]: ...
    @overload
    def __get__(self, client: Client, owner: Any = None) -> Callable[P, Iterator[M]]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: Any = None) -> Callable[P, AsyncIterator[M]]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: Any = None) -> Any:
        """The method of a client; the builder itself where there is none."""
        return self._build if client is None else _method(client, self._build, client.every)


def _method(client: Any, build: Callable[..., Any], answer: Callable[[Any], Any]) -> Callable[..., Any]:
    @functools.wraps(build)
    def method(*arguments: Any, **named: Any) -> Any:
        return answer(build(client, *arguments, **named))

    method.__wrapped__ = build.__get__(client)  # the signature that `help` shows is without `self`
    return method
