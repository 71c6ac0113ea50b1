"""Schema versions: up, check, down, up on both databases; an old schema is refused."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import URL, Connection, create_engine, inspect, make_url, pool, text

from app.db.migrate import SchemaMismatch, config, ensure_current, upgrade
from app.db.tables import metadata
from app.settings import Settings
from tests.service import postgres_databases


@pytest.fixture
def url(database: str | None, tmp_path: Path) -> URL:
    return Settings(data=tmp_path, database=database).database_url


def table_names(url: URL) -> set[str]:
    def read(conn: Connection) -> set[str]:
        return set(inspect(conn).get_table_names()) - {"alembic_version"}

    with create_engine(url, poolclass=pool.NullPool).connect() as conn:
        return read(conn)


def test_up_check_down_up(url: URL) -> None:
    for _ in range(2):
        upgrade(url)
        command.check(config(url))
        assert table_names(url) == set(metadata.tables)
        command.downgrade(config(url), "base")
        assert table_names(url) == set()


def test_an_empty_database_is_filled_and_a_current_one_accepted(url: URL) -> None:
    assert ensure_current(url) == ensure_current(url) == "0001"
    assert table_names(url) == set(metadata.tables)


def test_processes_that_start_together_make_one_schema() -> None:
    with postgres_databases() as database:
        code = "import sys; from app.settings import Settings; from app.db.migrate import ensure_current; "
        code += "print(ensure_current(Settings(database=sys.argv[1]).database_url))"
        command_line = [sys.executable, "-c", code, database]
        started = [subprocess.Popen(command_line, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        answers = [process.communicate(timeout=60)[0] for process in started]
        assert answers == ["0001\n"] * 4


@pytest.mark.parametrize("revision", ["0000", None])
def test_another_schema_is_refused_with_what_to_do(url: URL, revision: str | None) -> None:
    upgrade(url)
    with create_engine(url, poolclass=pool.NullPool).begin() as conn:
        conn.execute(text("DELETE FROM alembic_version"))
        if revision is not None:
            conn.execute(text("INSERT INTO alembic_version VALUES (:revision)"), {"revision": revision})
    with pytest.raises(SchemaMismatch, match=f"has schema {revision or 'unknown'}, this version needs 0001") as caught:
        ensure_current(url)
    assert "paced migrate" in str(caught.value)
    assert "postgres:" not in str(caught.value), "no password in a message"


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("postgresql://u:p@h/d", "postgresql+psycopg"),
        ("postgres://u:p@h/d", "postgresql+psycopg"),
        ("postgresql+psycopg://u:p@h/d", "postgresql+psycopg"),
        ("sqlite:///file.db", "sqlite"),
    ],
)
def test_database_urls_get_an_async_driver(given: str, driver: str) -> None:
    assert Settings(database=given).database_url == make_url(given).set(drivername=driver)
