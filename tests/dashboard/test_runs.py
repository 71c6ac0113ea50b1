"""The pages of runs over HTTP: the list, one run, several compared."""

import csv
import io

import httpx2
import pytest

from app.dashboard.curves import unlike
from paced import wire
from tests.app.conftest import MakeWorld
from tests.app.world import World
from tests.browser.training import add_run, add_runs


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    made = make_world(60, holdout_share=0.3)
    made.measure()
    return made


def test_no_run_yet_says_how_to_begin(make_world: MakeWorld, browser: httpx2.Client) -> None:
    world = make_world(4)
    page = browser.get("/runs", params={"measurement": world.curriculum.measurement_id}).text
    assert f"paced distill --curriculum {world.curriculum.curriculum_id}" in page


def test_runs_are_listed_with_their_newest_numbers(world: World, browser: httpx2.Client) -> None:
    first = add_run(world.client, world.curriculum, "kl-seed1", 1.0, 1, 20)
    world.client.update_run(first.run_id, wire.RunState.FINISHED)
    empty = world.client.create_run(wire.RunCreate(curriculum_id=world.curriculum.curriculum_id, name="waiting"))
    chosen = {"measurement": world.curriculum.measurement_id}
    page = browser.get("/runs", params=chosen).text
    assert page.index("waiting") < page.index("kl-seed1"), "the newest first"
    rows = list(csv.DictReader(io.StringIO(browser.get("/runs.csv", params=chosen).text)))
    assert [row["run_id"] for row in rows] == [empty.run_id, first.run_id]
    newest = list(world.client.metrics(first.run_id))[-1]
    assert (rows[1]["state"], rows[1]["stage"], rows[1]["last_step"]) == ("finished", "reverse_kl", "19")
    assert float(rows[1]["kl_per_token"]) == newest.values["kl_per_token"]
    assert float(rows[1]["tokens_per_s"]) == newest.values["n_tokens"] / newest.values["duration_s"]
    assert (rows[0]["stage"], rows[0]["loss"]) == ("", "")


def test_a_run_whose_trainer_fell_silent_says_so(world: World, browser: httpx2.Client) -> None:
    curriculum_id = world.curriculum.curriculum_id
    left, done, mute = (
        world.client.create_run(wire.RunCreate(curriculum_id=curriculum_id, name=name)).run_id for name in "abc"
    )
    point = wire.MetricPoint(step=0, stage=wire.Stage.FORWARD_KL, values={"loss": 1.0})
    for run_id in (left, done):  # the third is of a trainer that sends no metrics
        world.client.append_metrics(run_id, [point])
    world.client.update_run(done, wire.RunState.FINISHED)

    def n_silent() -> list[int]:
        chosen = {"measurement": world.curriculum.measurement_id}
        pages = ("/runs", *(f"/runs/{run_id}" for run_id in (left, done, mute)))
        return [browser.get(page, params=chosen).text.count(">silent<") for page in pages]

    assert n_silent() == [0, 0, 0, 0]
    world.clock.advance(16 * 60)
    assert n_silent() == [1, 1, 0, 0]
    world.client.append_metrics(left, [point.model_copy(update={"step": 1})])
    assert n_silent() == [0, 0, 0, 0]


def test_one_run_shows_its_curves_hold_out_and_loss_weights(world: World, browser: httpx2.Client) -> None:
    runs = add_runs(world.client, world.curriculum, 20)
    page = browser.get(f"/runs/{runs[0].run_id}")
    assert page.status_code == 200
    for title in ("KL to the teacher", "Hold-out pass rate", "Gradient norm", "Tokens a second", "Loss weights"):
        assert f"<h2>{title}</h2>" in page.text
    assert "<dt>learning_rate</dt><dd>1e-05</dd>" in page.text
    found = browser.get(f"/runs/{runs[0].run_id}.json").json()
    assert (found["switches"], found["stages"]) == ([10.0], ["forward_kl", "reverse_kl"])
    begun, written = found["holdout"]
    assert (begun["step"], begun["point"]["checkpoint_index"]) == (0, 0), "the checkpoint that it began from"
    assert (written["step"], written["point"]["n_problems"]) == (20, world.measurement.n_holdout)
    assert len(found["loss_weights"]["forward_kl"]) == 48
    rows = list(csv.DictReader(io.StringIO(browser.get(f"/runs/{runs[0].run_id}.csv").text)))
    assert len(rows) == 20 * len(found["metrics"])
    assert {row["metric"] for row in rows} >= {"kl_per_token", "grad_norm", "tokens_per_s"}
    smooth = browser.get(f"/runs/{runs[0].run_id}.json", params={"smooth": 7}).json()["metrics"]["grad_norm"]
    raw = found["metrics"]["grad_norm"]
    assert max(smooth["high"]) == max(raw["mean"]), "the spike stays in the band"
    assert max(smooth["mean"]) < max(raw["mean"])


def test_a_run_that_is_none_is_told(browser: httpx2.Client) -> None:
    answer = browser.get("/runs/run_none")
    assert answer.status_code == 404
    assert "there is no run" in answer.text


def test_runs_are_compared_and_exported(world: World, browser: httpx2.Client) -> None:
    runs = add_runs(world.client, world.curriculum, 20)
    query = [("measurement", world.curriculum.measurement_id), *(("run_id", run.run_id) for run in runs)]
    page = browser.get("/runs/compare", params=[*query, ("by", "tokens")]).text
    assert "kl, mean of 2" in page
    assert page.count("checked") == 3
    found = browser.get("/runs/compare.json", params=query).json()
    assert (found["metric"], found["by"]) == ("kl_per_token", "step")
    assert [group["group"] for group in found["comparison"]["groups"]] == ["kl"]
    rows = list(csv.DictReader(io.StringIO(browser.get("/runs/compare.csv", params=query).text)))
    assert len(rows) == 60
    assert {row["run"] for row in rows} == {"kl-seed1", "kl-seed2", "faster"}
    refused = browser.get("/runs/compare", params=[*query, ("metric", "nothing")])
    assert refused.status_code == 422
    assert "none of these runs has the metric" in refused.text


def test_without_a_choice_it_asks_for_one(world: World, browser: httpx2.Client) -> None:
    add_run(world.client, world.curriculum, "alone", 1.0, 1, 4)
    page = browser.get("/runs/compare", params={"measurement": world.curriculum.measurement_id}).text
    assert "No run is chosen" in page
    assert "alone" in page


def test_names_that_stand_for_several_are_numbered() -> None:
    assert unlike(["a", "b", "a"]) == ["a (1)", "b", "a (2)"]


def test_runs_of_one_name_and_of_other_students_are_told_apart(
    world: World, make_world: MakeWorld, browser: httpx2.Client
) -> None:
    other = make_world(20)
    runs = [add_run(made.client, made.curriculum, "distill", 1.0, 1, 5) for made in (world, other)]
    query = [("measurement", world.curriculum.measurement_id), *(("run_id", run.run_id) for run in runs)]
    page = browser.get("/runs/compare", params=query).text
    assert "Runs of other students, problem sets or profiles" in page
    assert page.count(" checked") == 2
    assert ">distill (1)</a>" in page
    assert ">distill (2)</a>" in page
