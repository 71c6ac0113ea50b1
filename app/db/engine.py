"""The database: one class for SQLite (one writer, many readers) and PostgreSQL."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

from sqlalchemy import URL, event
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.errors import Busy, Invalid

T = TypeVar("T")
MAX_TRIES = 8
# serialization, deadlock, lock not available; and a unique key that a twin took between our look and our insert:
# the next try finds the twin
RETRIED_SQLSTATES = frozenset({"40001", "40P01", "55P03", "23505"})
AWAY_CLASSES = frozenset({"08", "3D", "53", "57"})  # connection lost, no such database, out of resources, shut down


class Database:
    """Hands out transactions. `url` names the async driver; call `close` when done.

    SQLite has one writing connection that begins IMMEDIATE, so writers queue in the process and never
    meet "database is locked"; readers see the last committed state (WAL). A commit is on disk
    (synchronous=FULL) before a write returns.
    """

    def __init__(self, url: URL, pool_size: int = 8) -> None:
        self.is_sqlite = url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            self._writer = _sqlite_engine(url, "BEGIN IMMEDIATE", pool_size=1)
            self._reader = _sqlite_engine(url, "BEGIN", pool_size=pool_size)
        else:
            self._writer = self._reader = create_async_engine(
                url, pool_size=pool_size, max_overflow=pool_size, pool_pre_ping=True, pool_timeout=30
            )

    async def __aenter__(self) -> Self:
        """Close at the end of the block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._writer.dispose()
        await self._reader.dispose()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A read-only transaction."""
        async with _connection(self._reader) as conn:
            yield conn

    async def transact(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `work` in one write transaction, again if the database asks for it; `work` must be repeatable."""
        for attempt in range(1, MAX_TRIES + 1):
            try:
                async with _connection(self._writer) as conn, conn.begin():
                    return await work(conn)
            except DBAPIError as error:
                if attempt == MAX_TRIES or not _is_passing(error):
                    raise
                await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - jitter, not a secret
        raise AssertionError("the loop returns or raises")


@asynccontextmanager
async def _connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    try:
        async with engine.connect() as conn:
            yield conn
    except PoolTimeout as error:
        raise Busy("all database connections are in use; try again", retry_after_s=1.0) from error
    except (DataError, OverflowError) as error:
        raise Invalid(
            "the database cannot hold a value of this request: a NUL character, or a number out of range",
            code="unstorable_value",
        ) from error
    except DBAPIError as error:
        if _is_away(error):
            raise Busy("the database does not answer; try again", code="no_database", retry_after_s=1.0) from error
        raise


def _is_passing(error: DBAPIError) -> bool:
    sqlstate = getattr(error.orig, "sqlstate", None)
    return sqlstate in RETRIED_SQLSTATES or "database is locked" in str(error.orig)


def _is_away(error: DBAPIError) -> bool:
    sqlstate = getattr(error.orig, "sqlstate", "")  # None where no connection came about; SQLite has none of these
    is_refused = isinstance(error, OperationalError) and (sqlstate is None or sqlstate[:2] in AWAY_CLASSES)
    return error.connection_invalidated or is_refused


def _sqlite_engine(url: URL, begin: str, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(url, pool_size=pool_size, max_overflow=0, pool_timeout=60)

    @event.listens_for(engine.sync_engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "busy_timeout=60000",
            "cache_size=-65536",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _on_begin(conn: Any) -> None:
        conn.exec_driver_sql(begin)

    return engine
