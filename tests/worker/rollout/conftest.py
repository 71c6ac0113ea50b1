"""A real service on SQLite, and measurements on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service import Service, TestClock, serve
from tests.worker.rollout.world import MakeWorld, World, build


@pytest.fixture
def service(tmp_path: Path, clock: TestClock) -> Iterator[Service]:
    with serve(tmp_path / "data", None, clock) as running:
        yield running


@pytest.fixture
def make_world(service: Service, tmp_path: Path) -> Iterator[MakeWorld]:
    """Builds a world of the given prompts and answers."""
    with service.client() as client:

        def make(problems: list[tuple[str, str]], uri: str = "/models/tiny/0", **profile: object) -> World:
            return build(client, service, tmp_path, problems, uri, **profile)

        yield make
