"""`paced compare`: arms tabled from what the service knows of their runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import t as student_t
from typer.testing import CliRunner

from paced import Client, wire
from paced.cli import build as build_cli
from paced.compared import Point, Seen, interval, quantile, table, value_at
from tests.app.world import build, measure
from tests.service import ADMIN_KEY, serve

RATES = {("uniform", 0): 3, ("uniform", 1): 4, ("default", 0): 5, ("default", 1): 6}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with serve(tmp_path / "data", None) as service, service.client() as found:
        yield found


def trained(client: Client, folder: Path, arm: str, seed: int, n_passed: int | None) -> wire.Run:
    """A run of four steps; its hold-out goes from 2/8 to `n_passed`/8, None: it is not measured again."""
    suffix = f"-{arm}-{seed}"
    curriculum = build(client, folder, n=10, suffix=suffix, holdout_share=0.5, problem_set=f"sums-uniform-{seed}")
    student = curriculum.student
    measure(client, student, lambda _: 2)
    body = wire.RunCreate(
        curriculum_id=curriculum.curriculum_id, name=f"{arm}-s{seed}", config={"arm": arm, "seed": seed}
    )
    run = client.create_run(body)
    values = {"loss": 1.0, "kl_per_token": 0.5, "n_tokens": 100.0, "duration_s": 30.0}
    points = [wire.MetricPoint(step=i, stage="forward_kl", values={**values, "loss": 4.0 - i}) for i in range(4)]
    client.append_metrics(run.run_id, points)
    made = wire.CheckpointCreate(uri=f"/models/{student}/4", parent_index=0, run_id=run.run_id, step=4)
    client.register_checkpoint(student, made)
    if n_passed is not None:
        measure(client, student, lambda _: n_passed)
    client.update_run(run.run_id, wire.RunState.FINISHED)
    return run


def compared(client: Client, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said(client, *arguments, "--json"))
    return found


def said(client: Client, *arguments: str, code: int = 0) -> str:
    environment = {"PACED_URL": client.url, "PACED_KEY": ADMIN_KEY, "COLUMNS": "200"}
    done = CliRunner().invoke(build_cli(), ["compare", *arguments], env=environment)
    assert done.exit_code == code, done.output
    return done.output if code == 0 else str(done.exception)


def test_arms_are_tabled_with_intervals_over_seeds(client: Client, tmp_path: Path) -> None:
    for (arm, seed), n_passed in RATES.items():
        trained(client, tmp_path, arm, seed, n_passed)
    rows = {row["arm"]: row for row in compared(client, "--by", "step")["arms"]}
    assert rows["uniform"]["n_runs"] == 2
    assert rows["uniform"]["before"] == [0.25, 0.0]
    mean, half = rows["uniform"]["after"]
    assert (mean, half) == (3.5 / 8, pytest.approx(12.7062 * 0.5 / 8, abs=1e-4))
    assert rows["uniform"]["over_baseline"] is None
    assert rows["default"]["over_baseline"] == [0.25, 0.0]
    assert rows["default"]["tokens"] == [400.0, 0.0]
    assert rows["default"]["minutes"] == [2.0, 0.0]
    assert rows["default"]["kl"] == [0.5, 0.0]
    curve = rows["default"]["curve"]
    assert (curve[0]["step"], curve[-1]["step"]) == (0, 4)
    assert curve[4]["value"][0] == pytest.approx((0.25 + 5.5 / 8) / 2, abs=1e-4)

    by_loss = compared(client, "default", "--metric", "loss", "--by", "tokens")
    assert [row["arm"] for row in by_loss["arms"]] == ["default"]
    assert (by_loss["arms"][0]["curve"][0]["tokens"], by_loss["arms"][0]["curve"][-1]["tokens"]) == (100, 400)
    assert by_loss["arms"][0]["curve"][-1]["value"] == [1.0, 0.0]

    text = said(client)
    assert "after, over uniform" in text
    assert "0.688 ± " in text
    assert "not measured to their ends" not in text


def test_runs_by_name_and_those_that_are_not_measured_yet(client: Client, tmp_path: Path) -> None:
    run = trained(client, tmp_path, "uniform", 0, None)
    (row,) = compared(client, run.run_id)["arms"]
    assert (row["before"], row["after"], row["gain"]) == ([0.25, None], None, None)
    assert "not measured to their ends yet: uniform-s0" in said(client, "uniform-s0")
    assert "there is no run or arm absent" in said(client, "uniform", "absent", code=1)


def test_without_arms_there_is_nothing_to_compare(client: Client) -> None:
    assert "no run belongs to an arm yet" in said(client, code=1)


def test_intervals_are_students() -> None:
    for n_free in (*range(1, 40), 100, 1000):
        assert quantile(n_free) == pytest.approx(student_t.ppf(0.975, n_free), abs=2e-4)
    assert interval([0.4]) == (0.4, None)


def test_curves_are_read_by_lines_and_only_where_all_have_values() -> None:
    def seen(arm: str, *points: tuple[int, float]) -> Seen:
        curve = tuple(Point(step, 10.0 * step, value) for step, value in points)
        return Seen(f"run_{arm}", arm, "", "mine", arm, 0, "finished", 8, 8, 0.1, 0.2, 80.0, 1.0, 0.3, curve)

    a, b = seen("a", (0, 0.0), (8, 0.8)), seen("b", (2, 0.4), (10, 0.4))
    assert value_at(a.curve, 2, "step") == pytest.approx(0.2)
    assert value_at(a.curve, 9, "step") is None
    rows = table([a, b], "a", "tokens")
    assert [(row["curve"][0]["tokens"], row["curve"][-1]["tokens"]) for row in rows] == [(20.0, 80.0)] * 2
    assert rows[1]["over_baseline"] == [0.0, None]
    assert table([seen("a", (0, 0.0))], None, "step")[0]["curve"] == []


def trial(name: str, arm: str, before: float, after: float, run_id: str = "") -> Seen:
    run_id = run_id or f"run_{name}{arm}"
    return Seen(run_id, arm, name, "mine", arm, 0, "finished", 8, 8, before, after, 80.0, 1.0, 0.3, ())


def test_runs_of_other_models_are_not_compared() -> None:
    small = [trial("small", "uniform", 0.2, 0.3), trial("small", "default", 0.2, 0.4)]
    large = [trial("large", "uniform", 0.7, 0.8), trial("large", "default", 0.7, 0.9)]
    rows = table([*small, *large], "uniform", "step")
    assert [(row["trial"], row["arm"], row["n_runs"]) for row in rows] == [
        ("large", "uniform", 1), ("large", "default", 1), ("small", "uniform", 1), ("small", "default", 1),
    ]  # fmt: skip
    assert [row["over_baseline"] for row in rows] == [None, [0.1, None], None, [0.1, None]]


def test_two_runs_that_would_be_one_baseline_are_refused() -> None:
    twice = [trial("small", "uniform", 0.2, 0.3, run_id) for run_id in ("run_1", "run_2")]
    with pytest.raises(ValueError, match=r"run_1.* and .*run_2.* have one problem set and seed"):
        table([*twice, trial("small", "default", 0.2, 0.4)], "uniform", "step")
