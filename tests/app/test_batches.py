"""Batches: durable, repeatable, never in two hands, and explained."""

from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError

from paced import Client, wire
from paced.errors import ApiError, BatchExpired, NothingEligible, ScheduleComplete
from tests.app.conftest import MakeWorld
from tests.app.world import World, build, measure
from tests.service import ADMIN_KEY, TestClock, serve

HALF = {"name": "discounted_beta", "prior_a": 0.5, "prior_b": 0.5}
PLUG_IN = {"name": "plug_in_newest"}


def outcome(problem_id: int, n_passed: int, n_failed: int, **fields: int) -> wire.Outcome:
    return wire.Outcome(problem_id=problem_id, checkpoint_index=0, n_passed=n_passed, n_failed=n_failed, **fields)


def run_of(world: World, name: str = "run") -> str:
    return world.client.create_run(wire.RunCreate(curriculum_id=world.curriculum.curriculum_id, name=name)).run_id


def test_the_same_key_is_the_same_batch(make_world: MakeWorld) -> None:
    world = make_world(40, holdout_share=0.0)
    batch = world.draw(8, key="first")
    assert world.draw(8, key="first") == batch
    assert world.client.batch(batch.batch_id) == batch
    assert world.draw(8, key="second").batch_id != batch.batch_id
    world.client.acknowledge(batch.batch_id)
    replayed = world.draw(8, key="first")
    assert replayed == batch.model_copy(update={"state": wire.BatchState.ACKNOWLEDGED})
    assert len(list(world.client.batches(world.curriculum.curriculum_id))) == 2


def test_open_batches_share_no_problem(make_world: MakeWorld) -> None:
    world = make_world(30, holdout_share=0.0)
    batches = [world.draw(10) for _ in range(3)]
    drawn = [problem_id for batch in batches for problem_id in batch.problem_id]
    assert sorted(drawn) == world.problem_ids()
    with pytest.raises(NothingEligible) as caught:
        world.draw(1)
    assert caught.value.members["shortfall"] == {
        "n_requested": 1,
        "n_returned": 0,
        "n_problems": 30,
        "n_flagged": 0,
        "n_holdout": 0,
        "n_quarantined": 0,
        "n_in_flight": 30,
        "n_cooling": 0,
        "n_unmeasured": 0,
        "n_filtered": 0,
        "n_zero_weight": 0,
        "n_other_strata": 0,
    }
    world.client.acknowledge(batches[1].batch_id)
    assert sorted(world.draw(30).problem_id) == sorted(batches[1].problem_id)


def test_an_unacknowledged_batch_expires_and_its_problems_return_once(make_world: MakeWorld) -> None:
    world = make_world(20, holdout_share=0.0, batch_ttl_s=60)
    lost, kept = world.draw(10), world.draw(10)
    world.client.acknowledge(kept.batch_id)
    world.clock.advance(61)
    assert world.client.batch(lost.batch_id).state == "expired"
    again = world.draw(20)
    assert sorted(again.problem_id) == world.problem_ids()
    with pytest.raises(BatchExpired):
        world.client.acknowledge(lost.batch_id, [outcome(lost.problem_id[0], 8, 0)])
    assert world.estimate(lost.problem_id[0]).n_groups == 0
    states = [batch.state for batch in world.client.batches(world.curriculum.curriculum_id)]
    assert states == ["expired", "acknowledged", "open"]


def test_a_batch_in_place_of_an_expired_one_takes_its_step(make_world: MakeWorld) -> None:
    world = make_world(20, holdout_share=0.0, batch_ttl_s=60)
    client, curriculum_id = world.client, world.curriculum.curriculum_id
    mine, other = run_of(world, "mine"), run_of(world, "other")
    done, lost = (client.draw_batch(curriculum_id, 2, run_id=mine) for _ in range(2))
    client.acknowledge(done.batch_id)
    for batch, code in ((done, "batch_not_expired"), (lost, "batch_not_expired")):
        with pytest.raises(ApiError, match="keeps its step") as refused:
            client.draw_batch(curriculum_id, 2, run_id=mine, replaces=batch.batch_id)
        assert refused.value.code == code
    world.clock.advance(61)
    for run_id, batch_id, why in (
        (other, lost.batch_id, "none of run"),
        (mine, "bat_none", "none of run"),
        (None, lost.batch_id, "give the `run_id`"),
    ):
        with pytest.raises(ApiError, match=why):
            client.draw_batch(curriculum_id, 2, run_id=run_id, replaces=batch_id)
    steps = [
        client.draw_batch(curriculum_id, 2, run_id=mine, key=key, replaces=lost.batch_id).step for key in ("a", "a")
    ]
    assert steps == [1, 1]
    with pytest.raises(ApiError, match="has taken the step") as refused:
        client.draw_batch(curriculum_id, 2, run_id=mine, key="b", replaces=lost.batch_id)
    assert refused.value.code == "batch_replaced"
    assert refused.value.status == 409
    assert client.draw_batch(curriculum_id, 2, run_id=mine).step == 2
    world.clock.advance(61)  # the one in its place too was not trained on
    newest = client.draw_batch(curriculum_id, 2, run_id=mine, key="a", replaces=lost.batch_id)
    assert client.draw_batch(curriculum_id, 2, run_id=mine, replaces=newest.batch_id).step == 1


def test_outcomes_are_counted_once(make_world: MakeWorld) -> None:
    world = make_world(20, holdout_share=0.0)
    batch = world.draw(3)
    one, two, three = batch.problem_id
    sent = [outcome(one, 3, 1), outcome(two, 0, 2, n_truncated=2), outcome(three, 0, 0, n_truncated=4)]
    receipt = world.client.acknowledge(batch.batch_id, sent)
    assert receipt == wire.BatchReceipt(
        batch_id=batch.batch_id, state=wire.BatchState.ACKNOWLEDGED, n_outcomes=3, is_replay=False
    )
    for replay in (sent, [outcome(one, 8, 0)], []):
        receipt = world.client.acknowledge(batch.batch_id, replay)
        assert (receipt.state, receipt.n_outcomes, receipt.is_replay) == ("acknowledged", 0, True)
    found = [world.estimate(problem_id) for problem_id in (one, two, three)]
    assert [(e.n_groups, e.n_passed, e.n_counted) for e in found] == [(1, 3, 4), (1, 0, 2), (1, 0, 0)]
    assert found[1].verdicts == {"fail": 2, "truncated": 2}
    assert {e.observations[0].source for e in found} == {"trainer"}
    assert {e.checkpoint_index for e in found} == {0}
    assert world.measurement.n_measured == 3


def test_outcomes_reach_the_next_draw(make_world: MakeWorld) -> None:
    world = make_world(10, holdout_share=0.0, estimator=PLUG_IN)
    world.measure(lambda _: 4)
    batch = world.draw(5)
    world.client.acknowledge(batch.batch_id, [outcome(problem_id, 4, 0) for problem_id in batch.problem_id])
    following = world.draw(10)
    assert set(following.problem_id) == set(world.problem_ids()) - set(batch.problem_id)
    assert following.shortfall is not None
    assert following.shortfall.n_zero_weight == 5


def test_every_pass_rate_at_an_end_answers_in_time(make_world: MakeWorld) -> None:
    world = make_world(20, holdout_share=0.0)
    world.measure(lambda i: 8 * (i % 2))
    batch = world.draw(20)  # a posterior never rules a problem out
    assert (batch.size, batch.shortfall) == (20, None)
    world.client.acknowledge(batch.batch_id)
    change = wire.CurriculumUpdate.model_validate({"estimator": PLUG_IN})
    world.client.update_curriculum(world.curriculum.curriculum_id, change)
    with pytest.raises(NothingEligible) as caught:
        world.draw(4)
    assert caught.value.members["shortfall"]["n_zero_weight"] == 20


def test_a_zero_kernel_is_uniform_even_at_the_ends(make_world: MakeWorld) -> None:
    world = make_world(20, holdout_share=0.0, estimator=PLUG_IN, kernel={"alpha": 0, "beta": 0})
    world.measure(lambda i: 8 * (i % 2))
    batch = world.draw(20)
    assert batch.draw_probability == pytest.approx([1 / 20] * 20)
    assert batch.loss_weight == pytest.approx([1.0] * 20)


def test_the_hold_out_is_never_served(make_world: MakeWorld) -> None:
    world = make_world(60, holdout_share=0.3)
    held_out = {problem_id for problem_id, estimate in world.estimates().items() if estimate.is_holdout}
    assert 5 <= len(held_out) <= 35
    n_trained = 60 - len(held_out)
    for _ in range(3):
        batch = world.draw(n_trained)
        assert set(batch.problem_id).isdisjoint(held_out)
        assert batch.size == n_trained
        world.client.acknowledge(batch.batch_id)


def test_ids_only_on_request(make_world: MakeWorld) -> None:
    world = make_world(20)
    batch = world.draw(5, include="ids", key="ids")
    assert batch.problems is None
    full = world.client.batch(batch.batch_id)
    assert full.problems is not None
    assert [problem.problem_id for problem in full.problems] == batch.problem_id
    assert full.problems[0].prompt.startswith("Compute ")
    assert world.client.batch(batch.batch_id, include="ids") == batch
    with pytest.raises(ValueError, match="carries ids only"):
        list(batch.items())


def test_lists_come_in_pages_with_links_and_filters(make_world: MakeWorld) -> None:
    world = make_world(40, holdout_share=0.0)
    run_id = run_of(world)
    made = [world.draw(2, run_id=run_id if i % 2 else None, include="ids") for i in range(5)]
    world.client.acknowledge(made[0].batch_id)
    made[0] = made[0].model_copy(update={"state": wire.BatchState.ACKNOWLEDGED})
    curriculum_id = world.curriculum.curriculum_id
    assert list(world.client.batches(curriculum_id, limit=2)) == made
    assert list(world.client.batches(curriculum_id, run_id=run_id)) == [made[1], made[3]]
    assert list(world.client.batches(curriculum_id, state="open", limit=1)) == made[1:]
    assert [batch.step for batch in made] == [0, 0, 2, 1, 4]

    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with httpx2.Client(base_url=world.client.url, headers=headers) as http:
        page = http.get(f"/v1/curricula/{curriculum_id}/batches?limit=3&state=open")
        following = http.get(page.links["next"]["url"])
    assert [item["batch_id"] for item in page.json()["items"]] == [batch.batch_id for batch in made[1:4]]
    assert [item["batch_id"] for item in following.json()["items"]] == [made[4].batch_id]
    assert following.json()["next_cursor"] is None
    assert "next" not in following.links


def test_a_run_draws_only_from_its_own_curriculum(make_world: MakeWorld) -> None:
    one, other = make_world(5), make_world(5)
    with pytest.raises(Exception, match="belongs to curriculum"):
        one.draw(1, run_id=run_of(other))


def test_an_explanation_holds_the_terms_of_the_draw(make_world: MakeWorld) -> None:
    world = make_world(30, holdout_share=0.0, kernel={"alpha": 1, "beta": 2}, gamma=1.0, estimator=HALF)
    world.measure(lambda i: i % 9)
    batch = world.draw(6)
    change = wire.CurriculumUpdate.model_validate({"kernel": {"alpha": 5}, "estimator": PLUG_IN})
    world.client.update_curriculum(world.curriculum.curriculum_id, change)
    world.new_checkpoint()
    world.measure(lambda _: 8)

    explanation = world.client.explain(batch.batch_id)
    assert explanation.kernel == wire.Kernel(alpha=1, beta=2)
    assert explanation.estimator == wire.DiscountedBeta(prior_a=0.5, prior_b=0.5)
    assert (explanation.curriculum_version, explanation.gamma, explanation.mode) == (1, 1.0, "sample")
    assert explanation.n_eligible == 30
    n_inside = sum(0.2 < (0.5 + i % 9) / 9 < 0.8 for i in world.problem_ids())
    for position, item in enumerate(explanation.items):
        assert item.problem_id == batch.problem_id[position]
        assert item.weight == batch.weight[position]
        assert item.draw_probability == batch.draw_probability[position]
        assert item.loss_weight == batch.loss_weight[position]
        assert item.uniform_probability == 1 / 30
        is_inside = 0.2 < item.pass_rate < 0.8
        assert item.hard_filter_probability == (1 / n_inside if is_inside else 0.0)
        (known,) = item.observations
        assert (known.n_passed, known.n_counted, known.checkpoint_index) == (item.problem_id % 9, 8, 0)


@pytest.mark.parametrize("mode", ["sample", "reweight"])
def test_the_weight_acts_once(make_world: MakeWorld, mode: str) -> None:
    world = make_world(30, holdout_share=0.0, mode=mode, gamma=3.0, loss_weight_clip=1.25)
    world.measure()
    batch = world.draw(30)
    mean = sum(batch.weight) / 30
    if mode == "reweight":
        assert batch.draw_probability == pytest.approx([1 / 30] * 30)
        expected = [min(w / mean, 1.25) for w in batch.weight]
    else:
        total = sum(w**3 for w in batch.weight)
        assert batch.draw_probability == pytest.approx([w**3 / total for w in batch.weight])
        expected = [min(w / mean / 30 * total / w**3, 1.25) for w in batch.weight]
    assert batch.loss_weight == pytest.approx(expected)
    assert batch.draw_probability[0] > 0


def steps(client: Client, curriculum: wire.Curriculum, n: int) -> list[tuple[object, ...]]:
    """Draw and acknowledge with outcomes, `n` times; returns what was drawn."""
    drawn = []
    for _ in range(n):
        batch = client.draw_batch(curriculum.curriculum_id, 6)
        client.acknowledge(batch.batch_id, [outcome(i, i % 5, 5 - i % 5) for i in batch.problem_id[:3]])
        drawn.append((batch.problem_id, batch.weight, batch.draw_probability, batch.loss_weight, batch.seed))
    return drawn


def start(client: Client, folder: Path) -> tuple[wire.Curriculum, wire.Batch]:
    """A measured curriculum with one batch that is never acknowledged."""
    curriculum = build(client, folder, 40, seed=7)
    measure(client, size=64)  # in one report: beliefs that share a skill depend on what came together
    return curriculum, client.draw_batch(curriculum.curriculum_id, 4, key="waiting")


def test_a_restart_changes_nothing(database: str | None, clock: TestClock, tmp_path: Path) -> None:
    """The same seed and state give the same batches, on either database; what was open stays open."""
    with serve(tmp_path / "data", database, clock) as running, running.client() as client:
        curriculum, waiting = start(client, tmp_path)
        drawn = steps(client, curriculum, 3)
    with serve(tmp_path / "data", database, clock) as running, running.client() as client:
        assert client.draw_batch(curriculum.curriculum_id, 4, key="waiting") == waiting
        drawn += steps(client, curriculum, 3)
        estimates = list(client.estimates(curriculum.measurement_id))
    assert [seed for *_, seed in drawn] == [[7, seq] for seq in range(1, 7)]

    with serve(tmp_path / "never restarted", None, clock) as running, running.client() as client:
        control, _ = start(client, tmp_path)
        assert steps(client, control, 6) == drawn
        again = list(client.estimates(control.measurement_id))
    when = {"measured_at"}
    assert [e.model_dump(exclude=when) for e in again] == [e.model_dump(exclude=when) for e in estimates]


def test_more_values_than_a_statement_takes_go_in_chunks(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(20, holdout_share=0.0)
    monkeypatch.setattr("app.db.transaction.MAX_VALUES", 3)
    batch = world.draw(20)
    assert [problem.problem_id for problem in batch.problems or ()] == batch.problem_id
    world.client.acknowledge(batch.batch_id, [outcome(problem_id, 1, 2) for problem_id in batch.problem_id])
    assert {(e.n_passed, e.n_counted) for e in world.estimates().values()} == {(1, 3)}
    second = world.draw(20)
    assert [len(item.observations) for item in world.client.explain(second.batch_id).items] == [1] * 20
    texts = [wire.TeacherReference(problem_id=i, text="t", n_tokens=1, finish_reason="stop") for i in batch.problem_id]
    world.client.store_references(wire.TeacherReferences(teacher="chunks", references=texts))
    assert sorted(world.client.references("chunks", batch.problem_id)) == sorted(batch.problem_id)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"filters": {"cooldown_batches": 2}},
        {"strata": [{"tag": "sum", "share": 0.5}], "retest_share": 0.1},
    ],
    ids=["default", "cooldown", "strata"],
)
def test_several_drawn_at_once_are_what_single_draws_would_be(make_world: MakeWorld, fields: dict[str, Any]) -> None:
    one, other = make_world(64), make_world(64)
    for world in (one, other):
        first = world.problem_ids()[0]
        world.measure(lambda i, first=first: (i - first) % 9, size=64)  # in one report each, and so alike
        world.client.update_curriculum(world.curriculum.curriculum_id, wire.CurriculumUpdate.model_validate(fields))
        world.client.acknowledge(world.draw(6).batch_id)
    singles = [one.draw(8) for _ in range(5)]
    several = other.client.draw_batches(other.curriculum.curriculum_id, 8, 5)
    assert [batch.seed for batch in several] == [batch.seed for batch in singles]
    ours, theirs = one.problem_ids(), other.problem_ids()
    for single, batch in zip(singles, several, strict=True):
        assert [theirs.index(i) for i in batch.problem_id] == [ours.index(i) for i in single.problem_id]
        assert batch.draw_probability == single.draw_probability
        assert batch.loss_weight == single.loss_weight
        assert [problem.prompt for problem, _ in batch.items()] == [problem.prompt for problem, _ in single.items()]
    assert len({problem for batch in several for problem in batch.problem_id}) == 40


def test_several_draws_are_replayed_by_their_key(make_world: MakeWorld) -> None:
    world = make_world(60)
    draw = partial(world.client.draw_batches, world.curriculum.curriculum_id, include="ids", key="ahead")
    made = draw(4, 3)
    assert draw(4, 3) == made
    assert world.draw(4, key="ahead").batch_id not in {batch.batch_id for batch in made}
    with pytest.raises(ApiError, match="another body"):
        draw(4, 2)
    listed = list(world.client.batches(world.curriculum.curriculum_id))
    assert [batch.batch_id for batch in listed][:3] == [batch.batch_id for batch in made]
    with pytest.raises(ValidationError, match="more than 65536"):
        draw(1024, 65)


def test_several_draws_end_where_the_schedule_or_the_problems_do(make_world: MakeWorld) -> None:
    world = make_world(30)
    curriculum_id = world.curriculum.curriculum_id
    plan = wire.CurriculumUpdate(schedule=[wire.StagePlan(stage=wire.Stage.FORWARD_KL, steps=2)])
    world.client.update_curriculum(curriculum_id, plan)
    run = world.client.create_run(wire.RunCreate(name="r", curriculum_id=curriculum_id))
    found = world.client.draw_batches(curriculum_id, 4, 3, run_id=run.run_id)
    assert [batch.step for batch in found] == [0, 1]
    with pytest.raises(ScheduleComplete):
        world.client.draw_batches(curriculum_id, 4, 3, run_id=run.run_id)
    lifted = wire.CurriculumUpdate(schedule=[wire.StagePlan(stage=wire.Stage.FORWARD_KL)])
    world.client.update_curriculum(curriculum_id, lifted)
    rest = world.client.draw_batches(curriculum_id, 9, 5)
    assert [batch.size for batch in rest] == [9, 9, 2]
    assert [batch.shortfall is None for batch in rest] == [True, True, False]
    with pytest.raises(NothingEligible):
        world.client.draw_batches(curriculum_id, 10, 5)
