"""The whole flow through HTTP with real vLLM, the real model and real training: the demo, made small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from paced import Client
from tests.service import serve

KINDS = 7


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_demo_measures_trains_and_measures_again(tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"question": "Compute 1 + 2 + 3. Reply with the number only.", "answer": "6"}\n' * 2)
    size = ("--n-per-kind", "4", "--forward-steps", "2", "--reverse-steps", "1", "--batch-size", "6")
    command = [sys.executable, "-m", "paced", "demo", "--exit", "--json", *size, "--problems", str(own)]
    done = subprocess.run(
        [*command, "--data", str(tmp_path / "demo"), "--port", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert list(report["holdout"]) == ["before", "after_forward", "after_reverse"]
    assert report["n_trained"] == 3 * 6
    assert 0 <= report["frontier_share"]["uniform"] <= 1
    _check_against_the_service(tmp_path / "demo" / "service", report)


def _check_against_the_service(data: Path, report: dict[str, object]) -> None:
    """Every number of the report is in the service's records, which outlive the demo."""
    key = (data / "admin.key").read_text().strip()
    with serve(data, None) as service, Client(service.url, key) as client:
        (measurement,) = client.measurements()
        assert measurement.n_problems == KINDS * 4 + 1
        assert measurement.n_at_latest == measurement.n_problems
        points = client.holdout(measurement.measurement_id)
        shown = report["holdout"]
        assert isinstance(shown, dict)
        found = [{"pass_rate": p.pass_rate, "se": p.se, "n_rollouts": p.n_rollouts} for p in points]
        assert found == list(shown.values())
        assert {p.n_rollouts for p in points} == {8 * measurement.n_holdout}
        checkpoints = list(client.checkpoints("smollm2"))
        assert [c.step for c in checkpoints] == [None, 2, 3]
        assert all((Path(c.uri) / "config.json").exists() for c in checkpoints)
        (run,) = client.runs()
        stages = [point.stage for point in client.metrics(run.run_id)]
        assert stages == ["forward_kl"] * 2 + ["reverse_kl"]
        n_groups = sum(estimate.n_groups for estimate in client.estimates(measurement.measurement_id))
        assert n_groups * 8 == report["n_rollouts"]
