"""Reviews of answers in doubt: kept with who and when, out of the queue, and counted in log and estimates together."""

import pytest

from paced import wire
from paced.errors import BadRequest, Conflict, NotFound
from tests.app.conftest import MakeWorld
from tests.app.world import World, misjudge, verdict_group

IN_ANSWER = wire.DisputeKind.REFERENCE_IN_ANSWER


def disputes(world: World) -> list[wire.Dispute]:
    return list(world.client.disputes(world.measurement.measurement_id, IN_ANSWER))


def review(world: World, dispute: wire.Dispute, *, is_right: bool, by: str = "ada") -> wire.Review:
    place = {"observation_id": dispute.observation_id, "position": dispute.position}
    body = wire.ReviewCreate.model_validate({**place, "is_right": is_right, "note": "read it", "decided_by": by})
    return world.client.review(world.measurement.measurement_id, body)


def test_a_review_leaves_the_queue_and_moves_p_when_it_is_counted(make_world: MakeWorld) -> None:
    world = make_world(20, holdout_share=0.0)
    ids = misjudge(world.client, world.curriculum.student, 4)
    world.measure(lambda i: i % 9)
    world.draw(4)  # the pool is in memory
    found = disputes(world)
    assert {one.problem_id for one in found} >= set(ids)
    mine = [one for one in found if one.problem_id in ids]
    before = world.estimate(mine[0].problem_id)
    made = review(world, mine[0], is_right=True)
    assert (made.verdict_before, made.verdict_after, made.decided_by, made.counted_at) == ("fail", "pass", "ada", None)
    review(world, mine[1], is_right=False, by="bob")
    assert {one.dispute_id for one in disputes(world)} == {one.dispute_id for one in found} - {
        mine[0].dispute_id,
        mine[1].dispute_id,
    }
    assert world.estimate(mine[0].problem_id) == before

    counted = world.client.count_reviews(world.measurement.measurement_id)
    assert (counted.n_reviews, counted.n_changed) == (2, 1)
    after = world.estimate(mine[0].problem_id)
    assert (after.n_passed, after.n_counted) == (before.n_passed + 1, before.n_counted)
    assert after.pass_rate is not None
    assert before.pass_rate is not None
    assert after.pass_rate > before.pass_rate
    assert world.estimate(mine[1].problem_id).n_passed == 0
    query = f"passed:1 ordinal:{mine[0].ordinal}"
    assert world.client.estimate_page(world.measurement.measurement_id, query=query).n_matches == 1
    (group,) = [g for g in world.client.groups(world.measurement.measurement_id) if g.problem_id == mine[0].problem_id]
    assert group.rollouts[mine[0].position].verdict == "pass"
    kept = list(world.client.reviews(world.measurement.measurement_id))
    assert [(one.decided_by, one.verdict_after) for one in kept] == [("ada", "pass"), ("bob", "fail")]
    assert all(one.counted_at is not None for one in kept)
    assert world.client.count_reviews(world.measurement.measurement_id).n_reviews == 0


def test_a_review_may_change_until_it_is_counted(make_world: MakeWorld) -> None:
    world = make_world(6, holdout_share=0.0)
    misjudge(world.client, world.curriculum.student, 2)
    dispute = disputes(world)[0]
    review(world, dispute, is_right=True)
    changed = review(world, dispute, is_right=False, by="bob")
    assert (changed.verdict_after, changed.decided_by) == ("fail", "bob")
    assert world.client.count_reviews(world.measurement.measurement_id).n_changed == 0
    with pytest.raises(Conflict, match="is counted"):
        review(world, dispute, is_right=True)


def test_what_is_no_judged_answer_is_refused(make_world: MakeWorld) -> None:
    world = make_world(6, holdout_share=0.0)
    misjudge(world.client, world.curriculum.student, 2)
    dispute = disputes(world)[0]
    with pytest.raises(NotFound, match="no stored answer 99"):
        review(world, dispute.model_copy(update={"position": 99}), is_right=True)
    other = make_world(6, holdout_share=0.0)
    with pytest.raises(NotFound, match="no stored answer"):
        review(other, dispute, is_right=True)
    lease = other.claim(1)
    other.report(lease, [verdict_group(lease.problems[0].problem_id, [wire.Verdict.TIMEOUT] * 8)])
    (group,) = other.client.groups(other.measurement.measurement_id)
    late = {"observation_id": group.observation_id, "position": 0}
    with pytest.raises(BadRequest, match="only a pass or a fail"):
        review(other, dispute.model_copy(update=late), is_right=True)
