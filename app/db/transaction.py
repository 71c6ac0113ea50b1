"""Decorators that give a store method its transaction: one method, one transaction."""

import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import ColumnElement, Connection, Select

from app.db.engine import Database

MAX_VALUES = 10_000  # a statement takes 32,766 parameters on SQLite, 65,535 on PostgreSQL
P = ParamSpec("P")
R = TypeVar("R")


class HasDatabase(Protocol):
    """A store."""

    db: Database


S = TypeVar("S", bound=HasDatabase)
Method = Callable[Concatenate[S, Connection, P], R]
Bound = Callable[Concatenate[S, P], Coroutine[Any, Any, R]]


def reads(method: Method[S, P, R]) -> Bound[S, P, R]:
    """Call the method with a connection in a read transaction; a coroutine for the caller."""

    @functools.wraps(method)
    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self.db.read(lambda conn: method(self, conn, *args, **kwargs))

    return call


def writes(method: Method[S, P, R]) -> Bound[S, P, R]:
    """Call the method with a connection in a write transaction; it may run again after a conflict."""

    @functools.wraps(method)
    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self.db.transact(lambda conn: method(self, conn, *args, **kwargs))

    return call


def rows_in(
    conn: Connection, query: Select[Any], column: ColumnElement[Any], values: Sequence[Any]
) -> list[dict[str, Any]]:
    """Rows whose column is among values, however many: asked for in chunks, each in the query's order."""
    found = []
    for start in range(0, len(values), MAX_VALUES):
        chunk = values[start : start + MAX_VALUES]
        found += rows_as_dicts(conn.execute(query.where(column.in_(chunk))))
    return found


def storable(text: str) -> str:
    """What a model wrote, as PostgreSQL can store it: a NUL character becomes U+FFFD."""
    return text.replace("\x00", "\ufffd")


def rows_as_dicts(result: Any) -> list[dict[str, Any]]:
    """Rows as plain dictionaries, so that nothing of the database leaves the store."""
    names = [str(key) for key in result.keys()]  # noqa: SIM118 - no dict; a subclass of str that orjson refuses
    return [dict(zip(names, row, strict=True)) for row in result]
