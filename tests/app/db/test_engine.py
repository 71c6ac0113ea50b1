"""Transactions: what shares a commit stands or falls alone, and what follows a commit follows no rollback."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, make_url, text

from app.db.engine import Database, after_commit
from app.errors import Invalid
from tests.service import postgres_databases


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with ExitStack() as stack:
        if request.param == "sqlite":
            yield f"sqlite:///{tmp_path / 'engine.sqlite3'}"
        else:
            made = make_url(stack.enter_context(postgres_databases()))
            yield made.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def add(n: int, told: list[int] | None = None, *, is_bad: bool = False) -> Callable[[Connection], int]:
    def work(conn: Connection) -> int:
        conn.execute(text("INSERT INTO t VALUES (:n)"), {"n": n})
        if told is not None:
            after_commit(conn, lambda: told.append(n))
        if is_bad:
            raise Invalid("no", code="no")
        return n

    return work


def stored(conn: Connection) -> list[int]:
    return [row.n for row in conn.execute(text("SELECT n FROM t ORDER BY n"))]


async def test_one_that_fails_leaves_the_others_standing(database_url: str) -> None:
    """However many wait together: each has its own result or error, and commits alone decide what is told."""
    async with Database(make_url(database_url)) as db:
        await db.transact(lambda conn: conn.execute(text("CREATE TABLE t (n INTEGER)")))
        told: list[int] = []
        jobs = [db.transact(add(n, told, is_bad=n % 3 == 0)) for n in range(20)]
        found: list[Any] = await asyncio.gather(*jobs, return_exceptions=True)
        good = [n for n in range(20) if n % 3]
        assert [n for n in found if isinstance(n, int)] == good
        assert all(isinstance(found[n], Invalid) for n in range(0, 20, 3))
        assert await db.read(stored) == good
        assert sorted(told) == good


async def test_what_the_database_rolls_back_whole_is_told_to_all(tmp_path: Path) -> None:
    """SQLite: a full disk ends the transaction of all who share it; nothing of it is kept, and everybody knows."""
    async with Database(make_url(f"sqlite:///{tmp_path / 'engine.sqlite3'}")) as db:
        await db.transact(lambda conn: conn.execute(text("CREATE TABLE t (n INTEGER)")))
        is_running, may_end, told = threading.Event(), threading.Event(), []

        def slow(conn: Connection) -> None:
            is_running.set()
            may_end.wait(10)

        def full(conn: Connection) -> None:
            conn.connection.driver_connection.rollback()
            raise OSError("database or disk is full")

        first = asyncio.create_task(db.transact(slow))
        await asyncio.to_thread(is_running.wait, 10)
        rest = [asyncio.create_task(db.transact(work)) for work in (add(1, told), full, add(3, told))]
        await asyncio.sleep(0.05)
        may_end.set()
        await first
        found = await asyncio.gather(*rest, return_exceptions=True)
        assert all(isinstance(one, Exception) for one in found)
        assert (await db.read(stored), told) == ([], [])
        assert await db.transact(add(4, told)) == 4
        assert (await db.read(stored), told) == ([4], [4])


async def test_writers_that_wait_share_a_commit(tmp_path: Path) -> None:
    """SQLite: while one transaction runs, the ones behind it gather; they see each other in the order they came."""
    async with Database(make_url(f"sqlite:///{tmp_path / 'engine.sqlite3'}")) as db:
        await db.transact(lambda conn: conn.execute(text("CREATE TABLE t (n INTEGER)")))
        is_running, may_end, told = threading.Event(), threading.Event(), []

        def slow(conn: Connection) -> None:
            is_running.set()
            may_end.wait(10)
            add(0)(conn)

        def count(conn: Connection) -> int:
            told.append(conn.execute(text("SELECT COUNT(*) FROM t")).scalar_one())
            return add(9)(conn)

        first = asyncio.create_task(db.transact(slow))
        await asyncio.to_thread(is_running.wait, 10)
        rest = [asyncio.create_task(db.transact(count)) for _ in range(5)]
        given_up = asyncio.create_task(db.transact(add(77)))
        await asyncio.sleep(0.05)
        given_up.cancel()
        await asyncio.sleep(0)
        may_end.set()
        await asyncio.gather(first, *rest)
        assert told == [1, 2, 3, 4, 5]
        assert await db.read(stored) == [0, 9, 9, 9, 9, 9], "what was given up before its turn is not done"
