"""GET /v1/runs/compare on both databases."""

import pytest

from paced import wire
from paced.errors import ApiError
from tests.app.conftest import MakeWorld
from tests.app.world import World


def run(world: World, name: str, losses: list[float], **config: object) -> wire.Run:
    """A run with a loss a step, 10 tokens and 2 seconds each, reverse KL from the middle on."""
    body = {"curriculum_id": world.curriculum.curriculum_id, "name": name, "config": config}
    made = world.client.create_run(wire.RunCreate.model_validate(body))
    stages = [wire.Stage.FORWARD_KL] * (len(losses) // 2) + [wire.Stage.REVERSE_KL] * len(losses)
    points = [
        wire.MetricPoint(step=i, stage=stages[i], values={"loss": loss, "n_tokens": 10.0, "duration_s": 2.0})
        for i, loss in enumerate(losses)
    ]
    world.client.append_metrics(made.run_id, points)
    return made


def test_two_seeds_are_laid_over_each_other_and_pooled(make_world: MakeWorld) -> None:
    world = make_world(4)
    first = run(world, "kl-seed1", [1.0, 0.8, 0.6, 0.4], lr=1.0, seed=1)
    second = run(world, "kl-seed2", [1.2, 1.0, 0.8, 0.6], lr=1.0, seed=2)
    found = world.client.compare_runs([first.run_id, second.run_id], "loss")
    assert [series.run_id for series in found.runs] == [first.run_id, second.run_id]
    assert found.metrics == ["duration_s", "loss", "n_tokens", "tokens_per_s"]
    one = found.runs[0]
    assert (one.group, one.n_points, one.x, one.switches) == ("kl", 4, [0.0, 1.0, 2.0, 3.0], [2.0])
    assert one.mean == one.low == one.high == pytest.approx([1.0, 0.8, 0.6, 0.4])
    (group,) = found.groups
    assert (group.group, group.run_ids) == ("kl", [first.run_id, second.run_id])
    assert group.mean == pytest.approx([1.1, 0.9, 0.7, 0.5])
    assert all(low < mean < high for low, mean, high in zip(group.low, group.mean, group.high, strict=True))


@pytest.mark.parametrize(("by", "places", "switch"), [("tokens", [10.0, 20.0], 20.0), ("time", [2.0, 4.0], 4.0)])
def test_places_are_tokens_or_seconds(make_world: MakeWorld, by: str, places: list[float], switch: float) -> None:
    world = make_world(4)
    made = run(world, "alone", [1.0, 0.5])
    (series,) = world.client.compare_runs([made.run_id], "loss", by=by).runs
    assert (series.x, series.switches) == (places, [switch])


def test_tokens_a_second_are_made_of_what_trainers_send(make_world: MakeWorld) -> None:
    world = make_world(4)
    made = run(world, "alone", [1.0, 0.5])
    (series,) = world.client.compare_runs([made.run_id], "tokens_per_s").runs
    assert series.mean == [5.0, 5.0]


def test_long_runs_come_in_buckets_that_keep_spikes(make_world: MakeWorld) -> None:
    world = make_world(4)
    losses = [1.0] * 1000
    losses[500] = 50.0
    made = run(world, "long", losses)
    (series,) = world.client.compare_runs([made.run_id], "loss", n_buckets=20).runs
    assert (series.n_points, len(series.x), max(series.high)) == (1000, 20, 50.0)
    assert max(series.mean) < 3.0


def test_what_no_run_has_is_refused_by_name(make_world: MakeWorld) -> None:
    world = make_world(4)
    made = run(world, "alone", [1.0])
    with pytest.raises(ApiError, match="none of these runs has the metric 'kl'; they have duration_s, loss, n_tokens"):
        world.client.compare_runs([made.run_id], "kl")
    with pytest.raises(ApiError, match="there is no run 'run_none'"):
        world.client.compare_runs(["run_none"])
    with pytest.raises(ApiError, match="metric"):
        world.client.compare_runs([made.run_id], 'a"b')


def test_a_run_without_steps_is_an_empty_series(make_world: MakeWorld) -> None:
    world = make_world(4)
    made = run(world, "empty", [])
    (series,) = world.client.compare_runs([made.run_id]).runs
    assert (series.n_points, series.x, series.switches) == (0, [], [])
