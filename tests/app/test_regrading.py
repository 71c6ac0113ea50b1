"""Stored answers judged again make a second measurement; where two graders differ, the answer is listed."""

import pytest

from paced import wire
from paced.errors import BadRequest
from tests.app.conftest import MakeWorld
from tests.app.world import World

PASS, FAIL = wire.Verdict.PASS, wire.Verdict.FAIL


def second(world: World, **fields: object) -> wire.Measurement:
    """A measurement like the world's, under a newer grader."""
    old = world.client.profile(world.measurement.profile_id)
    body = {**old.model_dump(include=set(wire.ProfileCreate.model_fields)), "grader_version": "next", **fields}
    profile = world.client.create_profile(wire.ProfileCreate.model_validate(body))
    m = world.measurement
    return world.client.create_measurement(
        wire.MeasurementCreate(
            student=m.student, problem_set=m.problem_set, profile_id=profile.profile_id, n_rollouts=m.n_rollouts
        )
    )


def flipped(group: wire.StoredGroup, n: int) -> wire.RegradedGroup:
    """The group's verdicts with its first `n` failures passing."""
    verdicts, left = [], n
    for rollout in group.rollouts:
        is_turned = rollout.verdict == FAIL and left > 0
        left -= is_turned
        verdicts.append(wire.NewVerdict(verdict=PASS if is_turned else rollout.verdict, extracted="x"))
    return wire.RegradedGroup(observation_id=group.observation_id, verdicts=verdicts)


def test_regraded_answers_are_counted_once_under_their_new_verdicts(make_world: MakeWorld) -> None:
    world = make_world(12, holdout_share=0.5)
    world.measure(lambda _: 3)
    world.new_checkpoint()
    world.measure(lambda _: 5)
    target = second(world)
    groups = list(world.client.groups(world.measurement.measurement_id, limit=7))
    assert len(groups) == 24
    assert all(len(group.rollouts) == 8 and group.grader == "numeric" for group in groups)
    receipt = world.client.regrade(target.measurement_id, [flipped(group, 1) for group in groups])
    assert (receipt.n_accepted, receipt.n_replayed, receipt.n_changed) == (24, 0, 24)
    again = world.client.regrade(target.measurement_id, [flipped(group, 1) for group in groups[:5]])
    assert (again.n_accepted, again.n_replayed) == (0, 5)
    assert list(world.client.groups(world.measurement.measurement_id, missing_in=target.measurement_id)) == []
    for estimate in world.client.estimates(target.measurement_id):
        assert (estimate.n_groups, estimate.n_passed, estimate.n_counted) == (2, 4 + 6, 16)
        assert (estimate.last_passed, estimate.checkpoint_index) == (6, 1)
    assert world.client.measurement(target.measurement_id).n_due == 0
    old = [point.pass_rate for point in world.client.holdout(world.measurement.measurement_id)]
    new = [point.pass_rate for point in world.client.holdout(target.measurement_id)]
    assert (old, new) == ([3 / 8, 5 / 8], [4 / 8, 6 / 8])


def test_an_interrupted_regrade_goes_on_with_what_is_missing(make_world: MakeWorld) -> None:
    world = make_world(6, holdout_share=0.0)
    world.measure(lambda _: 2)
    target = second(world)
    first, *rest = world.client.groups(world.measurement.measurement_id)
    world.client.regrade(target.measurement_id, [flipped(first, 0)])
    missing = list(world.client.groups(world.measurement.measurement_id, missing_in=target.measurement_id))
    assert missing == rest


def test_answers_that_two_graders_judge_otherwise_are_listed_from_both_sides(make_world: MakeWorld) -> None:
    world = make_world(4, holdout_share=0.0)
    world.measure(lambda _: 2)
    source = world.measurement.measurement_id
    target = second(world)
    groups = list(world.client.groups(source))
    changes = [flipped(group, i) for i, group in enumerate(groups)]
    world.client.regrade(target.measurement_id, changes)
    from_old = list(world.client.disputes(source, wire.DisputeKind.GRADERS_DIFFER))
    assert [d.problem_id for d in from_old] == [g.problem_id for i, g in enumerate(groups) for _ in range(i)]
    assert {(d.verdict, d.other_verdict, d.other_measurement_id) for d in from_old} == {
        (FAIL, PASS, target.measurement_id)
    }
    from_new = list(world.client.disputes(target.measurement_id, wire.DisputeKind.GRADERS_DIFFER))
    assert {(d.verdict, d.other_verdict, d.other_measurement_id) for d in from_new} == {(PASS, FAIL, source)}
    assert len(from_new) == len(from_old) == 6


def test_failed_answers_that_hold_the_reference_are_listed_where_nothing_passed(make_world: MakeWorld) -> None:
    world = make_world(8, holdout_share=0.0)  # problem i has the answer 2 i + 1
    texts = {0: "It is 1.", 1: "about 13 or 33", 2: "5.2", 3: "the answer (7)", 4: "9", 5: "eleven"}
    lease = world.claim(8)
    ordinal = {problem_id: i for i, problem_id in enumerate(world.problem_ids())}
    groups = []
    for item in lease.problems:
        i = ordinal[item.problem_id]
        verdicts = [PASS if i == 4 and place == 0 else FAIL for place in range(8)]
        answers = [wire.Rollout(text=texts.get(i, "?"), verdict=verdict, n_tokens=1) for verdict in verdicts]
        groups.append(wire.RolloutGroup(problem_id=item.problem_id, checkpoint_index=0, rollouts=answers))
    world.report(lease, groups)
    found = list(world.client.disputes(world.measurement.measurement_id, wire.DisputeKind.REFERENCE_IN_ANSWER))
    assert [(d.ordinal, d.position) for d in found] == [(i, place) for i in (0, 3) for place in range(8)]
    assert found[0].answer == "1"


def test_answers_of_another_set_are_refused(make_world: MakeWorld) -> None:
    world, other = make_world(3, holdout_share=0.0), make_world(3, holdout_share=0.0)
    world.measure(lambda _: 2)
    group = next(world.client.groups(world.measurement.measurement_id))
    with pytest.raises(BadRequest, match="another student or problem set"):
        world.client.regrade(second(other).measurement_id, [flipped(group, 0)])
    with pytest.raises(BadRequest, match="another measurement than their own"):
        world.client.regrade(world.measurement.measurement_id, [flipped(group, 0)])
    short = wire.RegradedGroup(observation_id=group.observation_id, verdicts=[wire.NewVerdict(verdict=PASS)])
    with pytest.raises(BadRequest, match="has 8 answers"):
        world.client.regrade(second(world).measurement_id, [short])
