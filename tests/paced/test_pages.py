"""What the page on clients tells to type works, in order, beside a real service."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.world import build
from tests.docs.test_docs import ROOT, blocks
from tests.service import ADMIN_KEY, serve

PAGE = ROOT / "docs" / "clients.md"


@pytest.mark.slow
def test_the_examples_of_the_page_run(tmp_path: Path) -> None:
    run = [block for block in blocks(PAGE) if block.language == "python" and block.reason is None]
    assert len(run) == 4
    with serve(tmp_path / "data", None) as service, service.client() as client:
        curriculum = build(client, tmp_path, 200, name="products")
        environment = {**os.environ, "PACED_URL": service.url, "PACED_KEY": ADMIN_KEY}
        for block in run:
            done = subprocess.run(
                [sys.executable, "-c", block.text],
                capture_output=True,
                text=True,
                env=environment,
                cwd=ROOT,
                check=False,
            )
            assert done.returncode == 0, f"line {block.line}:\n{done.stderr[-3000:]}"
        assert done.stdout == "['tiny']\n"
        states = [batch.state for batch in client.batches(curriculum.curriculum_id)]
        assert states.count("acknowledged") == 4
