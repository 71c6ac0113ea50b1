"""Pass rates measured elsewhere: counted once each, by whatever names the problem."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from paced import Client, rates, wire
from paced.cli import build as build_cli
from paced.errors import PacedError
from tests.app.world import build
from tests.service import ADMIN_KEY, Service, TestClock, serve

N = 50
Run = Callable[..., Result]


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def service(tmp_path: Path, clock: TestClock) -> Iterator[Service]:
    with serve(tmp_path / "data", None, clock) as running:
        yield running


@pytest.fixture
def client(service: Service, tmp_path: Path) -> Iterator[Client]:
    with service.client() as made:
        build(made, tmp_path, N, holdout_share=0.2)
        yield made


@pytest.fixture
def run(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rates, "SIZES", (64, 16, 1))  # several batches

    def invoke(*command: str) -> Result:
        return CliRunner().invoke(build_cli(), [*command, "--url", service.url, "--key", ADMIN_KEY])

    return invoke


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def report(result: Result) -> dict[str, int]:
    assert result.exit_code == 0, (result.output, result.exception)
    found: dict[str, int] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("name", ["problem_id", "fingerprint", "prompt"])
def test_each_rate_is_one_observation_however_often_it_is_sent(
    client: Client, run: Run, tmp_path: Path, name: str
) -> None:
    problems = list(client.problems("sums", limit=100))
    rows = [{name: getattr(p, name), "n_passed": p.ordinal % 9, "n_counted": 8} for p in problems]
    file = write(
        tmp_path / "rates.jsonl", [*rows, {name: 10**9 if name == "problem_id" else "?", "n_passed": 1, "n_counted": 2}]
    )
    held_out = {e.ordinal for e in client.estimates("mea_1", is_holdout=True)}
    n_trained = N - len(held_out)
    assert report(run("import-rates", str(file), "--json")) == {
        "n_rows": N + 1,
        "n_counted": n_trained,
        "n_counted_before": 0,
        "n_unknown": 1,
        "n_not_served": len(held_out),
    }
    again = report(run("import-rates", str(file), "--json"))
    assert (again["n_counted"], again["n_counted_before"]) == (0, n_trained)
    for estimate in client.estimates("mea_1", limit=100):
        expected = (0, 0, 0) if estimate.ordinal in held_out else (1, estimate.ordinal % 9, 8)
        assert (estimate.n_groups, estimate.n_passed, estimate.n_counted) == expected
    first = next(e for e in client.estimates("mea_1") if not e.is_holdout)
    assert [o.source for o in client.estimate("mea_1", first.problem_id).observations] == ["trainer"]


def test_an_import_that_was_cut_short_counts_the_rest_once(
    client: Client, run: Run, tmp_path: Path, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": p.prompt, "pass_rate": 0.5} for p in client.problems("sums", limit=100)]
    file = write(tmp_path / "rates.jsonl", rows)
    calls = 0
    method = Client.acknowledge

    def cut(self: Client, batch_id: str, outcomes: Any = ()) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise PacedError("cut")
        return self.send(method(self, batch_id, outcomes))

    with monkeypatch.context() as patched:
        patched.setattr(Client, "acknowledge", cut)
        assert run("import-rates", str(file), "--answers", "4").exit_code == 1
    clock.advance(2 * 3600)  # the other batches have expired meanwhile
    more = write(tmp_path / "more.jsonl", [{"prompt": f"Compute 9{i} - 1.", "answer": "0"} for i in range(30)])
    client.import_problems("sums", more)
    done = report(run("import-rates", str(file), "--answers", "4", "--json"))
    trained = [e for e in client.estimates("mea_1") if not e.is_holdout and e.ordinal < N]
    n_trained = len(trained)
    assert done["n_counted_before"] >= 1
    assert done["n_counted"] + done["n_counted_before"] == n_trained
    counted = [(e.n_groups, e.n_passed, e.n_counted) for e in trained]
    assert counted == [(1, 2, 4)] * n_trained


def test_a_training_run_is_not_disturbed(client: Client, run: Run, tmp_path: Path) -> None:
    curriculum = next(client.curricula(name="main"))
    before = client.draw_batch(curriculum.curriculum_id, 8)
    rows = [{"problem_id": p, "n_passed": 1, "n_counted": 1} for p in before.problem_id]
    assert report(run("import-rates", str(write(tmp_path / "r.jsonl", rows)), "--json"))["n_counted"] == 8
    after = client.draw_batch(curriculum.curriculum_id, 8)
    assert (before.step, after.step) == (0, 1)
    assert client.acknowledge(before.batch_id).state == wire.BatchState.ACKNOWLEDGED


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"n_passed": 1, "n_counted": 2}, "row 1: names no problem"),
        ({"prompt": "?", "n_passed": 3, "n_counted": 2}, "3 of 2 answers cannot have passed"),
        ({"prompt": "?", "pass_rate": 0.5}, "--answers"),
        ({"prompt": "?", "n_counted": 8}, "pass_rate"),
        ({"prompt": "?", "n_passed": "many", "n_counted": 8}, "many"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, row: dict[str, Any], fault: str) -> None:
    with pytest.raises(PacedError, match=fault):
        rates.read_rates(write(tmp_path / "rates.jsonl", [row]), None)


def test_csv_and_parquet_are_read_too(tmp_path: Path) -> None:
    import polars as pl

    frame = pl.DataFrame({"problem_id": [4, 7], "pass_rate": [0.25, 1.0], "n_counted": [8, 2]})
    frame.write_csv(tmp_path / "r.csv")
    frame.write_parquet(tmp_path / "r.parquet")
    expected = [rates.Rate("problem_id", 4, 2, 8), rates.Rate("problem_id", 7, 2, 2)]
    assert rates.read_rates(tmp_path / "r.csv", None) == rates.read_rates(tmp_path / "r.parquet", None) == expected
    with pytest.raises(PacedError, match=r"none of \.jsonl"):
        rates.read_rates(tmp_path / "r.txt", None)
