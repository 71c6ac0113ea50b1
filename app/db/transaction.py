"""Decorators that give a store method its transaction: one method, one transaction."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database

P = ParamSpec("P")
R = TypeVar("R")


class HasDatabase(Protocol):
    """A store."""

    db: Database


S = TypeVar("S", bound=HasDatabase)
Method = Callable[Concatenate[S, AsyncConnection, P], Coroutine[Any, Any, R]]
Bound = Callable[Concatenate[S, P], Coroutine[Any, Any, R]]


def reads(method: Method[S, P, R]) -> Bound[S, P, R]:
    """Call the method with a connection in a read transaction."""

    @functools.wraps(method)
    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        async with self.db.reading() as conn:
            return await method(self, conn, *args, **kwargs)

    return call


def writes(method: Method[S, P, R]) -> Bound[S, P, R]:
    """Call the method with a connection in a write transaction; it may run again after a conflict."""

    @functools.wraps(method)
    async def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        async def work(conn: AsyncConnection) -> R:
            return await method(self, conn, *args, **kwargs)

        return await self.db.transact(work)

    return call


def rows_as_dicts(result: Any) -> list[dict[str, Any]]:
    """Rows as plain dictionaries, so that nothing of the database leaves the store."""
    return [dict(row) for row in result.mappings()]
