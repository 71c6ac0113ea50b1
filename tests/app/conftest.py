"""One service a test module on each database, and worlds of their own names within it."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.db.invariants import broken
from paced import Client
from tests.app.world import World, build
from tests.service import Service, TestClock, postgres_databases, serve

MakeWorld = Callable[..., World]
SUFFIXES = itertools.count()


@pytest.fixture(scope="module")
def shared_clock() -> TestClock:
    return TestClock()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_service(
    request: pytest.FixtureRequest, shared_clock: TestClock, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service for all tests of a module; each takes names of its own. At the end every invariant holds."""
    folder = tmp_path_factory.mktemp("service") / "data"
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(postgres_databases()) if request.param == "postgresql" else None
        running = stack.enter_context(serve(folder, url, shared_clock))
        yield running
        assert broken(running.settings.database_url) == {}


@pytest.fixture(scope="module")
def lite_service(shared_clock: TestClock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The same on SQLite only, for what the database has no part in."""
    with serve(tmp_path_factory.mktemp("service") / "data", None, shared_clock) as running:
        yield running


@pytest.fixture
def shared_client(shared_service: Service) -> Iterator[Client]:
    with shared_service.client() as made:
        yield made


@pytest.fixture
def lite_client(lite_service: Service) -> Iterator[Client]:
    with lite_service.client() as made:
        yield made


@pytest.fixture
def make_world(shared_service: Service, shared_client: Client, shared_clock: TestClock, tmp_path: Path) -> MakeWorld:
    def make(n: int = 40, **curriculum: object) -> World:
        made = build(shared_client, tmp_path, n, suffix=f"-{next(SUFFIXES)}", **curriculum)
        return World(shared_service, shared_client, shared_clock, made)

    return make
