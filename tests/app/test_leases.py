"""Rollout leases: who holds which problem, what is counted once, and what is measured next."""

import re

import pytest

from app.flow.rollouts.store import AT_ONCE
from paced import wire
from paced.errors import LeaseLost
from paced.wire import Verdict
from tests.app.conftest import MakeWorld
from tests.app.world import World, group, leased, token, verdict_group

FAILED = [Verdict.INFRASTRUCTURE] * 6 + [Verdict.GRADER_ERROR, Verdict.TIMEOUT]


def fail_until_quarantined(world: World, n_groups: int = 3) -> int:
    """Report groups without a verdict on the first problem; returns its id. All others have been measured."""
    world.measure()
    world.new_checkpoint()
    lease = world.claim(100)
    victim, *others = leased(lease)
    world.report(lease, [group(problem_id, 4, checkpoint=1) for problem_id in others])
    world.report(lease, [verdict_group(victim, FAILED, checkpoint=1)])
    for _ in range(n_groups - 1):
        lease = world.claim(100)
        assert leased(lease) == [victim]
        world.report(lease, [verdict_group(victim, FAILED, checkpoint=1)])
    return victim


def test_no_problem_is_in_two_leases(make_world: MakeWorld) -> None:
    world = make_world(40)
    leases = [world.claim(16) for _ in range(4)]
    assert [len(lease.problems) for lease in leases] == [16, 16, 8, 0]
    assert sorted(problem_id for lease in leases for problem_id in leased(lease)) == world.problem_ids()
    nothing = leases[-1]
    assert (nothing.lease_id, nothing.token, nothing.state, nothing.retry_after_s) == (None, None, None, 0.05)
    progress = world.measurement
    assert (progress.n_leased, progress.n_due, progress.n_measured) == (40, 0, 0)


def test_a_lease_says_all_that_a_worker_needs(make_world: MakeWorld) -> None:
    world = make_world(3, holdout_share=0.0)
    lease = world.claim(3, ttl_s=60)
    first = lease.problems[0]
    assert (first.prompt, first.answer, first.grader, first.n_rollouts) == ("Compute 0 + 1.", "1", "numeric", 8)
    assert lease.profile == world.client.profile(world.curriculum.profile_id)
    assert lease.checkpoint == world.client.student(world.curriculum.student).latest_checkpoint
    assert (lease.state, lease.measurement_id) == ("active", world.curriculum.measurement_id)
    assert lease.expires_at is not None
    assert 59 < (lease.expires_at - world.clock()).total_seconds() <= 60


def test_a_profile_may_overrule_the_grader_of_problems(make_world: MakeWorld) -> None:
    world = make_world(3)
    profile = world.client.create_profile(wire.ProfileCreate(grader=wire.GraderName.EXACT))
    body = wire.MeasurementCreate(
        student=world.curriculum.student, problem_set=world.curriculum.problem_set, profile_id=profile.profile_id
    )
    other = world.client.create_measurement(body)
    lease = world.claim(3, measurement_id=other.measurement_id)
    assert {problem.grader for problem in lease.problems} == {"exact"}


def test_expiry_returns_problems_and_refuses_the_late_report(make_world: MakeWorld) -> None:
    world = make_world(8)
    late = world.claim(8, ttl_s=30)
    assert late.lease_id is not None
    world.clock.advance(31)
    assert (world.measurement.n_leased, world.measurement.n_due) == (0, 8)
    with pytest.raises(LeaseLost):
        world.report(late, [group(leased(late)[0], 8)])
    again = world.claim(8)
    assert leased(again) == leased(late)
    with pytest.raises(LeaseLost) as caught:
        world.report(late, [group(leased(late)[0], 8)])
    assert (caught.value.code, caught.value.members["state"]) == ("lease_lost", "expired")
    with pytest.raises(LeaseLost):
        world.client.renew_lease(late.lease_id, token(late))
    with pytest.raises(LeaseLost):
        world.client.release_lease(late.lease_id, token(late))
    assert world.report(again, [group(problem_id, 2) for problem_id in leased(again)]).n_accepted == 8
    assert {(e.n_groups, e.n_passed, e.n_counted) for e in world.estimates().values()} == {(1, 2, 8)}


def test_a_doubled_report_is_replayed_even_after_the_lease(make_world: MakeWorld) -> None:
    world = make_world(4)
    lease = world.claim(4, ttl_s=30)
    first, *rest = leased(lease)
    receipt = world.report(lease, [group(first, 3)])
    assert (receipt.n_accepted, receipt.n_replayed, receipt.n_open, receipt.state) == (1, 0, 3, "active")
    receipt = world.report(lease, [group(first, 8), group(rest[0], 5)])
    assert (receipt.n_accepted, receipt.n_replayed, receipt.n_open) == (1, 1, 2)
    world.report(lease, [group(problem_id, 1) for problem_id in rest[1:]])
    world.clock.advance(31)
    receipt = world.report(lease, [group(problem_id, 8) for problem_id in leased(lease)])
    assert (receipt.n_accepted, receipt.n_replayed, receipt.n_open, receipt.state) == (0, 4, 0, "done")
    assert [estimate.n_passed for estimate in map(world.estimate, leased(lease))] == [3, 5, 1, 1]


def test_a_large_report_is_one_report_to_its_worker(make_world: MakeWorld) -> None:
    """Counted a few a transaction; a stranger among the last groups still refuses all."""
    world = make_world(3 * AT_ONCE)
    lease = world.claim(3 * AT_ONCE)
    stranger = group(max(leased(lease)) + 1, 3)
    groups = [group(problem_id, 3) for problem_id in leased(lease)]
    with pytest.raises(Exception, match="not leased by"):
        world.report(lease, [*groups, stranger])
    assert {estimate.n_groups for estimate in world.estimates().values()} == {0}
    assert world.report(lease, groups[:5]).n_accepted == 5
    receipt = world.report(lease, groups)
    assert (receipt.n_accepted, receipt.n_replayed, receipt.state) == (3 * AT_ONCE - 5, 5, "done")
    assert {(e.n_groups, e.n_passed) for e in world.estimates().values()} == {(1, 3)}


def test_part_of_a_report_that_is_refused_counts_nothing(make_world: MakeWorld) -> None:
    world = make_world(4)
    lease = world.claim(2)
    stranger = next(i for i in world.problem_ids() if i not in leased(lease))
    with pytest.raises(Exception, match="not leased by"):
        world.report(lease, [group(leased(lease)[0], 3), group(stranger, 3)])
    assert {estimate.n_groups for estimate in world.estimates().values()} == {0}


def test_renewing_holds_a_lease(make_world: MakeWorld) -> None:
    world = make_world(4)
    lease = world.claim(4, ttl_s=30)
    assert lease.lease_id is not None
    for _ in range(3):
        world.clock.advance(25)
        receipt = world.client.renew_lease(lease.lease_id, token(lease, ttl_s=30))
        assert (receipt.state, receipt.n_open) == ("active", 4)
        assert world.claim(4).lease_id is None
    assert world.report(lease, [group(leased(lease)[0], 1)]).n_accepted == 1


def test_releasing_returns_what_is_not_reported(make_world: MakeWorld) -> None:
    world = make_world(4)
    lease = world.claim(4)
    assert lease.lease_id is not None
    world.report(lease, [group(leased(lease)[0], 1)])
    for _ in range(2):  # released again, nothing changes
        receipt = world.client.release_lease(lease.lease_id, token(lease))
        assert (receipt.state, receipt.n_open) == ("released", 0)
    with pytest.raises(LeaseLost):
        world.report(lease, [group(leased(lease)[1], 1)])
    assert leased(world.claim(4)) == leased(lease)[1:]


def test_a_claim_with_the_same_key_is_the_same_lease(make_world: MakeWorld) -> None:
    world = make_world(8)
    key = f"claim of {world.curriculum.name}"
    lease = world.claim(4, key)
    assert world.claim(4, key) == lease
    assert leased(world.claim(8)) == [i for i in world.problem_ids() if i not in leased(lease)]
    world.clock.advance(121)
    replayed = world.claim(4, key)
    assert (replayed.lease_id, replayed.state, replayed.problems) == (lease.lease_id, "expired", [])
    assert len(world.claim(8).problems) == 8


def test_the_hold_out_comes_first_then_an_audit_share(make_world: MakeWorld) -> None:
    world = make_world(100, holdout_share=0.2)
    first = world.claim(world.measurement.n_holdout)
    estimates = world.estimates()
    assert 8 <= len(first.problems) <= 32
    assert all(estimates[problem_id].is_holdout for problem_id in leased(first))
    world.report(first, [group(problem_id, 4) for problem_id in leased(first)])
    assert world.estimate(leased(first)[0]).observations[0].source == "holdout"

    second = world.claim(40)
    world.report(second, [group(problem_id, 4) for problem_id in leased(second)])
    sources = {problem_id: world.estimate(problem_id).observations[0].source for problem_id in leased(second)}
    oldest = [problem_id for problem_id, source in sources.items() if source == "oldest"]
    audit = [problem_id for problem_id, source in sources.items() if source == "audit"]
    assert len(oldest) + len(audit) == 40
    assert 3 <= len(audit) <= 10  # ten draws, less the held out ones and those drawn twice
    passed_over = [i for i in estimates if i < max(oldest) and i not in sources and i not in leased(first)]
    assert passed_over == [], "the rest is taken in order"


def test_a_new_checkpoint_makes_everything_due_oldest_first(make_world: MakeWorld) -> None:
    world = make_world(40, holdout_share=0.0)
    world.measure()
    assert world.claim().lease_id is None
    assert world.new_checkpoint().index == 1
    lease = world.claim(30)
    assert lease.checkpoint is not None
    assert lease.checkpoint.index == 1
    world.report(lease, [group(problem_id, 8, checkpoint=1) for problem_id in leased(lease)])
    world.new_checkpoint()
    next_up = world.claim(10)
    estimates = world.estimates()
    n_oldest = sum(estimates[problem_id].checkpoint_index == 0 for problem_id in leased(next_up))
    assert n_oldest >= 8  # two of the ten are the audit
    progress = world.measurement
    assert (progress.n_measured, progress.n_at_latest, progress.n_due, progress.n_leased) == (40, 0, 30, 10)


def test_rollouts_of_an_older_checkpoint_count_but_leave_the_problem_due(make_world: MakeWorld) -> None:
    world = make_world(1, holdout_share=0.0)
    world.new_checkpoint()
    lease = world.claim(1)
    problem_id = leased(lease)[0]
    world.report(lease, [group(problem_id, 5, checkpoint=0)])
    assert (world.estimate(problem_id).checkpoint_index, world.estimate(problem_id).n_passed) == (0, 5)
    assert leased(world.claim(1)) == [problem_id]


def test_problems_that_keep_failing_are_set_aside_with_a_reason(make_world: MakeWorld) -> None:
    world = make_world(12, holdout_share=0.0)
    victim = fail_until_quarantined(world)
    estimate = world.estimate(victim)
    reason = "3 groups in a row gave no verdict: 6 × infrastructure, 1 × grader_error, 1 × timeout"
    assert estimate.quarantine_reason == reason
    assert estimate.verdicts["infrastructure"] == 18
    assert (estimate.n_groups, estimate.n_counted, estimate.checkpoint_index) == (4, 8, 0)
    assert (world.measurement.n_quarantined, world.measurement.n_due) == (1, 0)
    assert world.claim().lease_id is None
    batch = world.draw(12)
    assert batch.shortfall is not None
    assert (batch.size, batch.shortfall.n_quarantined) == (11, 1)
    assert victim not in batch.problem_id
    world.client.acknowledge(batch.batch_id)

    world.clock.advance(601)
    assert victim in world.draw(12).problem_id
    lease = world.claim()
    assert leased(lease) == [victim]
    world.report(lease, [verdict_group(victim, FAILED, checkpoint=1)])
    world.clock.advance(601)
    assert world.claim().lease_id is None, "the fourth failure waits twice as long"
    world.clock.advance(601)
    lease = world.claim()
    world.report(lease, [group(victim, 3, checkpoint=1)])
    estimate = world.estimate(victim)
    assert (estimate.quarantine_reason, estimate.checkpoint_index) == (None, 1)
    assert (world.measurement.n_quarantined, world.measurement.n_at_latest) == (0, 12)


def test_two_failures_leave_a_problem_due(make_world: MakeWorld) -> None:
    world = make_world(5, holdout_share=0.0)
    victim = fail_until_quarantined(world, n_groups=2)
    assert world.estimate(victim).quarantine_reason is None
    assert leased(world.claim()) == [victim]


@pytest.mark.parametrize("is_truncated_fail", [False, True])
def test_truncated_answers_are_counted_apart_or_as_fail(make_world: MakeWorld, is_truncated_fail: bool) -> None:
    world = make_world(2, holdout_share=0.0)
    profile = world.client.create_profile(wire.ProfileCreate(is_truncated_fail=is_truncated_fail, max_tokens=3))
    body = wire.MeasurementCreate(
        student=world.curriculum.student, problem_set=world.curriculum.problem_set, profile_id=profile.profile_id
    )
    measurement = world.client.create_measurement(body)
    lease = world.claim(2, measurement_id=measurement.measurement_id)
    some, all_of_them = leased(lease)
    verdicts = [Verdict.PASS] * 2 + [Verdict.FAIL] + [Verdict.TRUNCATED] * 4 + [Verdict.INFRASTRUCTURE]
    world.report(lease, [verdict_group(some, verdicts), verdict_group(all_of_them, [Verdict.TRUNCATED] * 8)])
    first, second = (world.client.estimate(measurement.measurement_id, i) for i in (some, all_of_them))
    assert first.verdicts == {"pass": 2, "fail": 1, "truncated": 4, "infrastructure": 1}
    assert (first.n_passed, first.n_counted) == (2, 7 if is_truncated_fail else 3)
    assert (second.n_passed, second.n_counted) == (0, 8 if is_truncated_fail else 0)
    assert (second.pass_rate is None) == (not is_truncated_fail)
    progress = world.client.measurement(measurement.measurement_id)
    assert (progress.n_measured, progress.n_due, progress.n_quarantined) == (2, 0, 0)


def test_pass_rates_of_two_profiles_never_mix(make_world: MakeWorld) -> None:
    world = make_world(6)
    profile = world.client.create_profile(wire.ProfileCreate(temperature=1.0))
    assert profile.profile_id != world.curriculum.profile_id
    body = wire.MeasurementCreate(
        student=world.curriculum.student, problem_set=world.curriculum.problem_set, profile_id=profile.profile_id
    )
    other = world.client.create_measurement(body)
    assert other.measurement_id != world.curriculum.measurement_id
    lease = world.claim(6, measurement_id=other.measurement_id)
    world.report(lease, [group(problem_id, 8) for problem_id in leased(lease)])
    assert {estimate.n_groups for estimate in world.estimates().values()} == {0}
    assert {e.n_passed for e in world.client.estimates(other.measurement_id)} == {8}
    assert world.measurement.n_measured == 0


def test_a_second_curriculum_finds_the_first_ones_estimates(make_world: MakeWorld) -> None:
    world = make_world(10)
    world.measure()
    first = world.curriculum
    fields = {"name": f"{first.name}-2", "student": first.student, "problem_set": first.problem_set}
    second = world.client.create_curriculum(
        wire.CurriculumCreate.model_validate({**fields, "profile_id": first.profile_id})
    )
    assert second.measurement_id == first.measurement_id
    assert world.claim().lease_id is None


def test_a_larger_hold_out_holds_for_every_curriculum_of_the_measurement(make_world: MakeWorld) -> None:
    world = make_world(100, holdout_share=0.1)
    first = world.curriculum
    fields = {"name": f"{first.name}-2", "student": first.student, "problem_set": first.problem_set}
    second = world.client.create_curriculum(
        wire.CurriculumCreate.model_validate({**fields, "profile_id": first.profile_id, "holdout_share": 0.4})
    )
    assert (second.holdout_share, world.client.curriculum(first.curriculum_id).holdout_share) == (0.4, 0.4)
    held_out = {problem_id for problem_id, estimate in world.estimates().items() if estimate.is_holdout}
    batch = world.draw(100 - len(held_out))
    assert set(batch.problem_id) == set(world.problem_ids()) - held_out


def test_nothing_is_due_before_there_are_weights(make_world: MakeWorld) -> None:
    world = make_world(3)
    bare = world.client.create_student(wire.StudentCreate(name=f"bare-{world.curriculum.name}"))
    world.client.create_measurement(
        wire.MeasurementCreate(
            student=bare.name, problem_set=world.curriculum.problem_set, profile_id=world.curriculum.profile_id
        )
    )
    lease = world.client.claim_lease(wire.LeaseClaim(student=bare.name, worker="test"))
    assert (lease.lease_id, lease.problems) == (None, [])


def test_ids_say_what_they_are(make_world: MakeWorld) -> None:
    world = make_world(3)
    found = [world.claim().lease_id, world.curriculum.curriculum_id, world.draw(1).batch_id]
    for prefix, public_id in zip(("lea", "cur", "bat"), found, strict=True):
        assert re.fullmatch(rf"{prefix}_[A-Za-z0-9_-]{{12}}", str(public_id))
