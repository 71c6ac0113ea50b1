"""Flagged problems are neither leased nor drawn nor held out until someone decides, and decisions are kept."""

import pytest

from paced import wire
from paced.errors import BadRequest, Conflict, NotFound
from tests.app.conftest import MakeWorld
from tests.app.world import World, leased

FLAG = wire.ProblemDecision(state=wire.ProblemState.FLAGGED, note="looks wrong", decided_by="ada")
READY = wire.ProblemDecision(state=wire.ProblemState.READY, decided_by="bob")
EXCLUDE = wire.ProblemDecision(state=wire.ProblemState.EXCLUDED, note="duplicate", decided_by="bob")


def decide(world: World, ordinal: int, body: wire.ProblemDecision) -> wire.Problem:
    return world.client.decide(world.curriculum.problem_set, ordinal, body)


def test_a_flagged_problem_is_not_leased_until_it_is_released(make_world: MakeWorld) -> None:
    world = make_world(10, holdout_share=0.0)
    flagged = decide(world, 3, FLAG)
    assert (flagged.state, flagged.flag, flagged.flag_detail) == ("flagged", "review", "looks wrong")
    lease = world.claim(100)
    assert sorted(leased(lease)) == sorted(set(world.problem_ids()) - {flagged.problem_id})
    assert (world.measurement.n_flagged, world.measurement.n_due) == (1, 0)
    assert world.client.problem_set(world.curriculum.problem_set).n_flagged == 1
    assert [p.ordinal for p in world.client.problems(world.curriculum.problem_set, state="flagged")] == [3]
    released = decide(world, 3, READY)
    assert released.state == "ready"
    assert leased(world.claim(100)) == [flagged.problem_id]
    assert world.client.problem_set(world.curriculum.problem_set).n_flagged == 0


def test_a_running_curriculum_follows_decisions_from_the_next_draw(make_world: MakeWorld) -> None:
    world = make_world(12, holdout_share=0.0)
    world.measure(lambda _: 4)
    ids = world.problem_ids()
    first = world.draw(4)
    world.client.acknowledge(first.batch_id)
    decide(world, 0, EXCLUDE)
    decide(world, 5, FLAG)
    batch = world.draw(10)
    assert set(batch.problem_id) == set(ids) - {ids[0], ids[5]}
    world.client.acknowledge(batch.batch_id)
    decide(world, 5, READY)
    assert set(world.draw(11).problem_id) == set(ids) - {ids[0]}
    with pytest.raises(BadRequest, match="larger than the pool"):
        world.draw(12)


def test_a_flagged_problem_is_not_part_of_the_holdout(make_world: MakeWorld) -> None:
    world = make_world(40, holdout_share=0.5)
    held = [e for e in world.estimates().values() if e.is_holdout]
    decide(world, held[0].ordinal, EXCLUDE)
    world.measure(lambda _: 4)
    (point,) = world.client.holdout(world.curriculum.measurement_id)
    assert point.n_problems == len(held) - 1 == world.measurement.n_holdout
    assert not world.estimate(held[0].problem_id).is_holdout


def test_decisions_are_kept_with_who_and_why(make_world: MakeWorld) -> None:
    world = make_world(5)
    decide(world, 1, FLAG)
    decide(world, 1, EXCLUDE)
    kept = list(world.client.decisions(world.curriculum.problem_set))
    assert [(d.ordinal, d.state_before, d.state_after, d.decided_by, d.note) for d in kept] == [
        (1, "ready", "flagged", "ada", "looks wrong"),
        (1, "flagged", "excluded", "bob", "duplicate"),
    ]


def test_an_answer_is_corrected_only_while_nothing_was_judged_against_it(make_world: MakeWorld) -> None:
    world = make_world(5, holdout_share=0.0)
    corrected = READY.model_copy(update={"answer": "99"})
    assert decide(world, 2, corrected).answer == "99"
    world.measure(lambda _: 4)
    with pytest.raises(Conflict, match="Exclude it"):
        decide(world, 2, READY.model_copy(update={"answer": "100"}))
    assert world.client.problem(world.curriculum.problem_set, 2).answer == "99"
    assert decide(world, 2, corrected).state == "ready"


def test_an_unknown_problem_is_named(make_world: MakeWorld) -> None:
    world = make_world(5)
    with pytest.raises(NotFound, match="no problem 5"):
        decide(world, 5, FLAG)
