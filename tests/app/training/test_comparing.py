"""GET /v1/runs/compare on both databases."""

import pytest

from paced import wire
from paced.errors import ApiError
from tests.app.conftest import MakeWorld
from tests.app.world import World, group, leased


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
    assert found.metrics == ["duration_s", "loss", "n_tokens", "pass_rate", "tokens_per_s"]
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


@pytest.mark.parametrize(("by", "places"), [("step", [0.0, 2.0, 4.0]), ("tokens", [0.0, 20.0, 40.0])])
def test_the_hold_out_is_laid_over_at_what_each_run_had_done(
    make_world: MakeWorld, by: str, places: list[float]
) -> None:
    worlds = [make_world(60, holdout_share=0.5) for _ in range(2)]
    runs = [run(world, f"arm-s{i}", [1.0] * 4, arm="default", seed=i) for i, world in enumerate(worlds)]
    for world, made, passed in zip(worlds, runs, (4, 6), strict=True):
        world.measure(lambda _id: 2)
        for step in (2, 3, 4):
            written = wire.CheckpointCreate(uri=f"/models/{step}", run_id=made.run_id, step=step)
            world.client.register_checkpoint(world.curriculum.student, written)
            if step == 3:  # overtaken when three problems of it were measured
                world.report(lease := world.claim(3), [group(i, 8, checkpoint=2) for i in leased(lease)])
            else:
                world.measure(lambda _id, passed=passed, step=step: passed + step // 4)
    found = worlds[0].client.compare_runs([made.run_id for made in runs], "pass_rate", by=by)
    assert [series.x for series in found.runs] == [places, places]
    assert [series.mean for series in found.runs] == [[2 / 8, 4 / 8, 5 / 8], [2 / 8, 6 / 8, 7 / 8]]
    (pool,) = found.groups
    assert pool.mean == pytest.approx([2 / 8, 5 / 8, 6 / 8])
    assert "pass_rate" in found.metrics


def test_a_run_without_checkpoints_has_no_hold_out(make_world: MakeWorld) -> None:
    world = make_world(20, holdout_share=0.5)
    world.measure()
    (series,) = world.client.compare_runs([run(world, "young", [1.0]).run_id], "pass_rate").runs
    assert (series.x, series.n_points) == ([], 0)


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
