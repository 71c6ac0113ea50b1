from collections.abc import Iterator
from pathlib import Path

import pytest

from paced import Client
from tests.service import serve
from tests.worker.distill.tiny import tiny_folder


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models") / "student")


@pytest.fixture
def sqlite_client(tmp_path: Path) -> Iterator[Client]:
    with serve(tmp_path / "data", None) as service, service.client() as client:
        yield client
