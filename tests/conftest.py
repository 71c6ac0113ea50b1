"""Fixtures that every part shares: real services on real databases."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from benchmarks import pool
from paced import Client
from tests.service import Service, TestClock, postgres_databases, serve

settings.register_profile("paced", deadline=None)  # a busy machine is no failure
settings.load_profile("paced")


@pytest.fixture(scope="session", autouse=True)
def _only_warnings() -> None:
    """Services in this process log warnings and worse, to standard error as `paced serve` does."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real problem files; tests that need them are skipped, by name, where they are not."""
    folder = os.environ.get("PACED_TEST_DATA")
    if not folder:
        pytest.skip("needs real problem files: set PACED_TEST_DATA to their folder")
    return Path(folder)


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """A database URL: None is SQLite in the data folder, the other one a fresh PostgreSQL database."""
    if request.param == "sqlite":
        yield None
        return
    with postgres_databases() as url:
        yield url


@pytest.fixture
def service(database: str | None, clock: TestClock, tmp_path: Path) -> Iterator[Service]:
    """A service over HTTP, on each database."""
    with serve(tmp_path / "data", database, clock) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    """A client with the service's admin key."""
    with service.client() as made:
        yield made


@pytest.fixture(scope="session")
def large_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, str]]:
    """A service process on SQLite with 100,000 measured problems: its client, and the id of a curriculum."""
    with pool.service(tmp_path_factory.mktemp("large"), 100_000) as made:
        yield made
