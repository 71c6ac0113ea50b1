"""paced replay scores estimators by what they forecast, and policies by what they would have drawn."""

import json
import re
import sqlite3
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import betabinom
from typer.testing import CliRunner, Result

from app.flow.batches.samplers import exponential_keys
from app.flow.estimates import policies, replay
from app.flow.estimates.columns import Columns
from paced import wire
from paced.cli import build as build_cli
from tests.app.world import World, build, measure
from tests.service import TestClock, serve

BETAS = {"discounted_beta", "discounted_beta_unfitted"}
ESTIMATORS = {"plug_in_first", "plug_in_newest", *BETAS, "logit_filter", "drift_filter"}
N = 60


def command(data: Path, *options: str, measurement: str = "mea_1") -> Result:
    return CliRunner().invoke(build_cli(), ["replay", measurement, "--data", str(data), *options])


def scored(data: Path) -> dict[str, Any]:
    found = command(data, "--json")
    assert found.exit_code == 0, found.output
    return dict(json.loads(found.stdout))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints in several reports each, and a trainer's outcomes after the second."""
    folder, clock = tmp_path_factory.mktemp("replay"), TestClock()
    rng = np.random.default_rng(3)
    logits = rng.normal(0.0, 2.0, N + 1)
    with serve(folder, None, clock) as service, service.client() as client:
        world = World(service, client, clock, build(client, folder, N, holdout_share=0.2))

        def passed(problem_id: int) -> int:
            return int(rng.binomial(8, 1 / (1 + np.exp(-logits[problem_id]))))

        world.measure(passed, size=25)
        world.new_checkpoint()
        world.measure(passed, size=25)
        batch = world.draw(12)
        outcomes = [wire.Outcome(problem_id=i, checkpoint_index=1, n_passed=1, n_failed=3) for i in batch.problem_id]
        client.acknowledge(batch.batch_id, outcomes)
        logits += 1.0
        world.new_checkpoint()
        world.measure(passed, size=25)
    return folder


@pytest.fixture(scope="module")
def found(data: Path) -> dict[str, Any]:
    return scored(data)


@pytest.fixture(scope="module")
def log(data: Path) -> list[tuple[int, int, int, int]]:
    """(problem_id, checkpoint_index, n_passed, n_counted) in the order they were counted."""
    with sqlite3.connect(data / "paced.sqlite3") as conn:
        rows = conn.execute(
            "SELECT problem_id, checkpoint_index, n_passed, n_counted FROM observations"
            " WHERE measurement_id = 1 AND n_counted > 0 ORDER BY observation_id"
        ).fetchall()
    conn.close()
    return rows


def test_each_forecast_is_scored_before_its_answers_count(
    found: dict[str, Any], log: list[tuple[int, int, int, int]]
) -> None:
    """A plug-in's score is that of a beta-binomial of the group it keeps, over the whole log."""
    first: dict[int, tuple[int, int]] = {}
    newest: dict[int, tuple[int, int]] = {}
    losses: dict[str, list[float]] = defaultdict(list)
    clusters: list[int] = []
    for problem_id, _, k, n in log:
        if problem_id in newest:
            clusters.append(problem_id)
            for name, known in (("plug_in_first", first), ("plug_in_newest", newest)):
                was, of = known[problem_id]
                losses[name].append(-betabinom.logpmf(k, n, 0.5 + was, 0.5 + of - was))
        first.setdefault(problem_id, (k, n))
        newest[problem_id] = (k, n)
    scores = {score["estimator"]: score for score in found["scores"]}
    assert set(scores) == ESTIMATORS
    assert {score["n_groups"] for score in scores.values()} == {len(clusters)} == {2 * N + 12}
    for name, expected in losses.items():
        assert scores[name]["log_loss"] == pytest.approx(np.mean(expected))
    behind = scores["plug_in_first"]["behind_best"] - scores["plug_in_newest"]["behind_best"]
    assert behind == pytest.approx(np.mean(np.subtract(losses["plug_in_first"], losses["plug_in_newest"])))
    for score in scores.values():
        assert sum(n for _, _, n in score["calibration"]) == len(clusters)
        parts = score["by_checkpoint"]
        assert [(part["checkpoint_index"], part["n_groups"]) for part in parts] == [(1, N + 12), (2, N)]
        total = sum(part["n_groups"] * part["log_loss"] for part in parts)
        assert total / len(clusters) == pytest.approx(score["log_loss"])


def test_the_best_estimator_is_behind_nothing(found: dict[str, Any]) -> None:
    best = min(found["scores"], key=lambda score: score["log_loss"])
    assert (best["behind_best"], best["behind_best_se"]) == (0.0, 0.0)
    for score in found["scores"]:
        assert score["behind_best"] == pytest.approx(score["log_loss"] - best["log_loss"])
        assert score is best or 0 < score["behind_best_se"] < 1


def test_a_clustered_error_counts_clusters_not_values() -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0])
    expected = values.std(ddof=1) / 2
    assert replay.clustered_error(values, np.array([3, 1, 2, 9])) == pytest.approx(expected)
    assert replay.clustered_error(np.repeat(values, 5), np.repeat([3, 1, 2, 9], 5)) == pytest.approx(expected)
    assert replay.clustered_error(values, np.zeros(4, np.int64)) == 0.0


def waves(log: list[tuple[int, int, int, int]]) -> list[tuple[np.ndarray[Any, Any], ...]]:
    """(p as known at the start, k, n) of each wave's problems, by the newest group."""
    newest: dict[int, float] = {}
    starts: dict[int, dict[int, float]] = {}
    answers: dict[int, dict[int, np.ndarray[Any, Any]]] = defaultdict(dict)
    for problem_id, index, k, n in log:
        starts.setdefault(index, dict(newest))
        answers[index][problem_id] = answers[index].get(problem_id, np.zeros(2)) + np.array([k, n])
        newest[problem_id] = k / n
    made = []
    for index in (1, 2):
        ids = sorted(answers[index])
        k, n = np.array([answers[index][i] for i in ids]).T
        made.append((np.array([starts[index][i] for i in ids]), k, n))
    return made


def test_policies_are_judged_by_the_law_at_the_start_of_each_wave(
    found: dict[str, Any], log: list[tuple[int, int, int, int]]
) -> None:
    laws = {
        "weight": lambda p: p * (1 - p),
        "weight^2": lambda p: (p * (1 - p)) ** 2,
        "weight^4": lambda p: (p * (1 - p)) ** 4,
        "hard_filter": lambda p: ((p > 0.2) & (p < 0.8)).astype(float),
    }
    scores = {(score["estimator"], score["policy"]): score for score in found["policies"]}
    names = {(name, policy) for name in ESTIMATORS for policy in (*laws, "thompson")}
    assert set(scores) == names | {("any", "uniform")}
    assert found["n_waves"] == 2
    for policy, law_of in laws.items():
        reach, waste = [], []
        for p, k, n in waves(log):
            assert len(p) == N
            law, best = law_of(p), policies.best_shares(k * (n - k) / (n * (n - 1)))
            reach.append(best[law > 0].sum())
            waste.append(law[(k == 0) | (k == n)].sum() / law.sum())
        score = scores["plug_in_newest", policy]
        for name, values in (("reach", reach), ("waste", waste)):
            assert score[name]["mean"] == pytest.approx(np.mean(values))
            assert score[name]["se"] == pytest.approx(np.std(values, ddof=1) / 2**0.5)
            assert score[name]["n_waves"] == 2
        assert 0.1 < score["recall"]["mean"] < 0.5, "better than chance"
    uniform = scores["any", "uniform"]
    assert uniform["reach"]["mean"] == pytest.approx(1.0)
    assert uniform["recall"]["mean"] == pytest.approx(0.1, abs=0.03), "a tenth of anything, by chance"
    assert uniform["waste"]["mean"] == pytest.approx(np.mean([((k == 0) | (k == n)).mean() for _, k, n in waves(log)]))
    for estimator in (*BETAS, "logit_filter", "drift_filter"):
        assert scores[estimator, "weight"]["reach"]["mean"] == pytest.approx(1.0)


@given(st.lists(st.integers(0, 4), min_size=10, max_size=60), st.randoms())
def test_the_best_fifth_is_a_fifth_whatever_the_order(levels: list[int], random: Any) -> None:
    weights = np.array(levels, np.float64)
    shares = policies.best_shares(weights)
    assert shares.sum() == pytest.approx(1.0 if weights.any() else 0.0)
    by_weight = -np.sort(-weights)
    room = len(weights) / 5
    whole = int(room)
    total = by_weight[:whole].sum() + (room - whole) * by_weight[whole]
    assert (shares * total).max() <= weights.max() + 1e-9
    assert np.divide(shares * total, weights, out=np.zeros(len(weights)), where=weights > 0).sum() <= room + 1e-9
    order = list(range(len(weights)))
    random.shuffle(order)
    assert policies.best_shares(weights[order]) == pytest.approx(shares[order])


def test_batches_are_drawn_as_the_service_draws_them() -> None:
    law = np.random.default_rng(1).random(50) + 0.01
    for seed in range(20):
        drawn = policies.successive_draw(law, 7, np.random.default_rng(seed))
        assert sorted(drawn) == sorted(exponential_keys(law, 7, np.random.default_rng(seed)))
    law[5:] = 0.0
    assert set(policies.successive_draw(law, 7, np.random.default_rng(0))) == set(range(5))
    assert len(policies.successive_draw(np.zeros(50), 7, np.random.default_rng(0))) == 0


def test_a_wave_without_weight_says_nothing_of_reach_and_recall() -> None:
    known = Columns.zeros(20)
    known.first_counted[:], known.last_counted[:] = 8, 8
    wave = policies.Wave(1, known, np.full(20, 8.0), np.full(20, 8.0))
    scores = {(score.estimator, score.policy): score for score in policies.score_policies([wave])}
    nothing = policies.Average(None, None, 0)
    newest, beta = scores["plug_in_newest", "weight"], scores["discounted_beta", "weight"]
    assert (newest.reach, newest.waste, newest.recall) == (nothing, nothing, nothing)
    assert (beta.reach, beta.waste, beta.recall) == (nothing, policies.Average(1.0, None, 1), nothing)


@pytest.mark.parametrize("n", [1, 8, 40])
def test_forecasts_are_distributions(n: int) -> None:
    k, of = np.arange(n + 1.0), np.full(n + 1, float(n))
    columns = Columns.zeros(n + 1)
    columns.first_passed[:], columns.first_counted[:] = 5, 8
    columns.last_passed[:], columns.last_counted[:] = 2, 8
    columns.discounted_passed[:], columns.discounted_failed[:] = 2.5, 11.0
    columns.logit_mean[:], columns.logit_variance[:] = -1.2, 0.4
    columns.alone_mean[:], columns.alone_variance[:] = 0.3, 0.9
    columns.audits[0] = 30.0, 12.0, 8.0, 30 / 8
    assert set(replay.FORECASTS) == set(policies.ESTIMATORS)
    for forecast in replay.FORECASTS.values():
        log_p, p = forecast(columns, k, of)
        assert np.exp(log_p).sum() == pytest.approx(1.0)
        assert (np.exp(log_p) @ k) / n == pytest.approx(p[0], rel=1e-6)


def test_the_tables_name_the_best_first(data: Path, found: dict[str, Any]) -> None:
    shown = command(data)
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[0].startswith(f"Forecasts of {2 * N + 12} groups of problems measured before, ")
    by_loss = sorted(found["scores"], key=lambda score: score["log_loss"])
    n = len(ESTIMATORS)
    assert [line.split("  ")[0] for line in lines[2 : n + 2]] == [score["estimator"] for score in by_loss]
    assert len(lines) == n + 2 + 3 + len(found["policies"])
    recalls = [float(line.split()[-3]) for line in lines[n + 5 :]]
    assert recalls == sorted(recalls, reverse=True)


def test_the_page_holds_all_it_shows(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "replay.html"
    assert command(data, "--html", str(file)).exit_code == 0
    page = file.read_text()
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == 2
    assert len(scripts[0]) > 1_000_000, "plotly.js itself"
    around = page.replace(scripts[0], "")
    assert not re.search(r"https?://|\bsrc=|\bhref=", around), "nothing comes over a network"
    assert all(f"<td>{name}</td>" in around for name in (*ESTIMATORS, "hard_filter", "thompson", "uniform"))
    plots = json.loads(scripts[1].removeprefix("const plots = ").split(";\n")[0])
    figures = {name: plotly.graph_objects.Figure(plot) for name, plot in plots.items()}  # refuses unknown properties
    assert {name: len(figure.data) for name, figure in figures.items()} == {
        "loss": 6,
        "calibration": 1 + 2 * 6,
        "policies": 3 * 7,
    }
    assert sum(sum(trace.y) for trace in figures["calibration"].data if trace.type == "bar") == 6 * (2 * N + 12)


def test_a_page_that_cannot_be_written_is_named(data: Path, tmp_path: Path) -> None:
    found = command(data, "--html", str(tmp_path / "no folder" / "replay.html"))
    assert found.exit_code == 2
    assert "cannot write" in found.stderr


@pytest.mark.parametrize(
    ("name", "said"), [("mea_9", "there is no measurement 'mea_9'"), ("x", "not an id of the form")]
)
def test_a_replay_of_no_measurement_says_so(data: Path, name: str, said: str) -> None:
    found = command(data, measurement=name)
    assert found.exit_code == 1
    assert said in found.stderr


def test_a_log_with_nothing_to_forecast_says_so(tmp_path: Path) -> None:
    with serve(tmp_path / "data", None, TestClock()) as service, service.client() as client:
        build(client, tmp_path, 5)
        nothing = command(tmp_path / "data")
        measure(client)
    once = command(tmp_path / "data", "--json")
    for found, said in ((nothing, "holds nothing yet"), (once, "none of a problem measured before")):
        assert found.exit_code == 1
        assert said in found.stderr
        assert "measure its problems at two checkpoints" in found.stderr


def test_a_log_of_few_problems_scores_estimators_alone(tmp_path: Path) -> None:
    with serve(tmp_path / "data", None, TestClock()) as service, service.client() as client:
        build(client, tmp_path, 5)
        measure(client)
        client.register_checkpoint("tiny", wire.CheckpointCreate(uri="/models/tiny/1"))
        measure(client)
    file = tmp_path / "replay.html"
    found = command(tmp_path / "data", "--html", str(file))
    assert found.exit_code == 0, found.output
    for said in (found.stdout, file.read_text()):
        assert "Draws are not scored: no checkpoint has answers to 10 problems measured before it" in said
