"""The database: one class for SQLite (one writer, many readers) and PostgreSQL.

A transaction is a plain function of a sync connection. On SQLite it runs whole on a thread, one hop a transaction; on
PostgreSQL it runs on the event loop, which is free while the server answers.
"""

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any, Protocol, Self, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import create_async_engine

from app.errors import Busy, Invalid

T = TypeVar("T")
Work = Callable[[Connection], T]
MAX_TRIES = 8
CHECKPOINT_EVERY = 200  # commits
MAX_GROUP = 64  # write transactions that share a commit
# serialization, deadlock, lock not available; and a unique key that a twin took between our look and our insert:
# the next try finds the twin
RETRIED_SQLSTATES = frozenset({"40001", "40P01", "55P03", "23505"})
AWAY_CLASSES = frozenset({"08", "3D", "53", "57"})  # connection lost, no such database, out of resources, shut down
_AFTER_COMMIT = "paced.after_commit"


class Database:
    """Runs transactions. Call `close` when done.

    SQLite has one writing thread whose transactions begin IMMEDIATE, so writers queue in the process and never
    meet "database is locked"; readers see the last committed state (WAL). A commit is on disk
    (synchronous=FULL) before a write returns.
    """

    def __init__(self, url: URL, pool_size: int = 8) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._backend: _Backend = _Sqlite(url, pool_size) if self.is_sqlite else _Postgres(url, pool_size)

    async def __aenter__(self) -> Self:
        """Close at the end of the block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._backend.close()

    async def read(self, work: Work[T]) -> T:
        """Run `work` in a read transaction."""
        with _translating():
            return await self._backend.read(work)

    async def transact(self, work: Work[T]) -> T:
        """Run `work` in one write transaction, again if the database asks for it; `work` must be repeatable."""
        with _translating():
            for attempt in range(1, MAX_TRIES + 1):
                try:
                    return await self._backend.write(work)
                except DBAPIError as error:
                    if attempt == MAX_TRIES or not _is_passing(error):
                        raise
                    await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - jitter, not a secret
        raise AssertionError("the loop returns or raises")


def after_commit(conn: Connection, done: Callable[[], None]) -> None:
    """Call `done` once the transaction is committed, in the order of commits; not at all if it is rolled back."""
    conn.info.setdefault(_AFTER_COMMIT, []).append(done)


def _committed(conn: Connection, work: Work[T]) -> T:
    conn.info.pop(_AFTER_COMMIT, None)  # of a try that was rolled back
    with conn.begin():
        found = work(conn)
    for done in conn.info.pop(_AFTER_COMMIT, ()):
        done()
    return found


class _Backend(Protocol):
    async def read(self, work: Work[T]) -> T: ...

    async def write(self, work: Work[T]) -> T: ...

    async def close(self) -> None: ...


class _Sqlite:
    def __init__(self, url: URL, pool_size: int) -> None:
        self._writer = _sqlite_engine(url, "BEGIN IMMEDIATE", pool_size=1)
        self._reader = _sqlite_engine(url, "BEGIN", pool_size=pool_size)
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._reading = ThreadPoolExecutor(pool_size, thread_name_prefix="reader")
        self._waiting: SimpleQueue[_Job] = SimpleQueue()
        self._n_commits = 0

    async def read(self, work: Work[T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, self._read, work)

    async def write(self, work: Work[T]) -> T:
        job = _Job(work)
        self._waiting.put(job)
        self._writing.submit(self._write_waiting)
        found: T = await asyncio.wrap_future(job.done)
        return found

    async def close(self) -> None:
        for threads in (self._writing, self._reading):
            await asyncio.to_thread(threads.shutdown)
        self._writer.dispose()
        self._reader.dispose()

    def _read(self, work: Work[T]) -> T:
        with self._reader.connect() as conn:
            return work(conn)

    def _write_waiting(self) -> None:
        """Run what waits by now in one transaction: writers that wait for each other share one commit."""
        jobs = self._waiting_jobs()
        if not jobs:
            return  # an earlier call took them along
        try:
            with self._writer.connect() as conn:
                _committed(conn, jobs[0].run if len(jobs) == 1 else lambda conn: _run_each(conn, jobs))
        except BaseException as error:
            for job in jobs:
                job.done.set_exception(error)
        else:
            for job in jobs:
                job.settle()
        self._n_commits += 1
        if self._n_commits % CHECKPOINT_EVERY == 0:
            self._reading.submit(self._checkpoint)

    def _checkpoint(self) -> None:
        """Copy the log into the database beside the writer: left to SQLite, the commit in hand would wait for it."""
        connection = self._reader.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")
        finally:
            connection.close()

    def _waiting_jobs(self) -> list["_Job"]:
        jobs: list[_Job] = []
        while len(jobs) < MAX_GROUP:
            try:
                job = self._waiting.get_nowait()
            except Empty:
                break
            if job.done.set_running_or_notify_cancel():
                jobs.append(job)
        return jobs


class _Job:
    """One write transaction that waits for its turn; `done` is told only after the commit."""

    def __init__(self, work: Work[Any]) -> None:
        self._work = work
        self._result: Any = None
        self._error: Exception | None = None
        self.done: Future[Any] = Future()

    def run(self, conn: Connection) -> None:
        self._result = self._work(conn)

    def run_apart(self, conn: Connection) -> None:
        """In a savepoint: a job that fails leaves nothing, and the others stand."""
        kept = list(conn.info.get(_AFTER_COMMIT, ()))
        try:
            with conn.begin_nested():
                self.run(conn)
        except Exception as error:
            connection: Any = conn.connection.driver_connection
            if not connection.in_transaction:  # SQLite rolled back all of them, as on a full disk
                raise
            conn.info[_AFTER_COMMIT] = kept
            self._error = error

    def settle(self) -> None:
        if self._error is None:
            self.done.set_result(self._result)
        else:
            self.done.set_exception(self._error)


def _run_each(conn: Connection, jobs: list[_Job]) -> None:
    for job in jobs:
        job.run_apart(conn)


class _Postgres:
    def __init__(self, url: URL, pool_size: int) -> None:
        self._engine = create_async_engine(
            url, pool_size=pool_size, max_overflow=pool_size, pool_pre_ping=True, pool_timeout=30
        )

    async def read(self, work: Work[T]) -> T:
        async with self._engine.connect() as conn:
            return await conn.run_sync(work)

    async def write(self, work: Work[T]) -> T:
        async with self._engine.connect() as conn:
            return await conn.run_sync(_committed, work)

    async def close(self) -> None:
        await self._engine.dispose()


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
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


def _sqlite_engine(url: URL, begin: str, pool_size: int) -> Engine:
    engine = create_engine(url, pool_size=pool_size, max_overflow=0, pool_timeout=60)

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "busy_timeout=60000",
            "wal_autocheckpoint=0",
            "cache_size=-65536",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(conn: Any) -> None:
        conn.exec_driver_sql(begin)

    return engine
