from collections.abc import Iterator
from pathlib import Path

import pytest

from paced import Client
from tests.service import Service, serve


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """On SQLite and in real time: trainers have no part in either."""
    with serve(tmp_path / "data", None) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with service.client() as made:
        yield made
