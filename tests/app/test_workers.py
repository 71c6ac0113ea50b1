"""GET /v1/measurements/{id}/workers: what each report counts, by worker and minute, on both databases."""

import datetime as dt

import pytest

from paced import wire
from tests.app.conftest import MakeWorld
from tests.app.world import World, leased, token, verdict_group

PASS, FAIL, TIMEOUT = wire.Verdict.PASS, wire.Verdict.FAIL, wire.Verdict.TIMEOUT


def workers(world: World) -> wire.Workers:
    return world.client.workers(world.curriculum.measurement_id)


def timed(problem_id: int, seconds: float) -> wire.RolloutGroup:
    answers = [wire.Rollout(text="1", verdict=PASS, n_tokens=10, grading_s=seconds + i / 1000) for i in range(8)]
    return wire.RolloutGroup(problem_id=problem_id, checkpoint_index=0, rollouts=answers)


def test_reports_are_counted_by_worker_and_minute(make_world: MakeWorld) -> None:
    world = make_world(40, holdout_share=0.0)
    for worker, n in (("a", 4), ("b", 2)):
        lease = world.claim(n, worker=worker)
        world.report(lease, [verdict_group(i, [PASS] * 4 + [FAIL] * 3 + [TIMEOUT]) for i in leased(lease)])
        world.clock.advance(60)
    world.clock.advance(240)
    lease = world.claim(1, worker="b")
    world.report(lease, [verdict_group(leased(lease)[0], [FAIL] * 8)])
    found = workers(world)
    assert [worker.worker for worker in found.workers] == ["b", "a"], "the last seen first"
    b, a = found.workers
    assert (a.n_groups_5m, a.n_groups_1h, a.n_answers_1h, a.n_tokens_5m, a.tokens_per_s) == (0, 4, 32, 0, 0.0)
    assert (b.n_groups_5m, b.n_groups_1h, b.n_answers_5m, b.n_answers_1h) == (1, 3, 8, 24)
    assert 8 / 300 <= b.tokens_per_s <= 8 / 240
    assert b.last_seen_at is not None
    assert found.at - dt.timedelta(seconds=30) < b.last_seen_at <= found.at
    assert found.verdicts == {"pass": 24, "fail": 26, "timeout": 6}
    assert [(minute.n_groups, minute.n_tokens) for minute in found.minutes] == [(4, 32), (2, 16), (1, 8)]
    world.clock.advance(3600)
    later = workers(world)
    assert (later.verdicts, later.minutes) == ({}, [])
    assert {worker.n_groups_1h for worker in later.workers} == {0}


def test_a_replayed_report_is_counted_once(make_world: MakeWorld) -> None:
    world = make_world(8, holdout_share=0.0)
    lease = world.claim(2)
    groups = [verdict_group(i, [PASS] * 8) for i in leased(lease)]
    for _ in range(2):
        world.report(lease, groups)
    assert workers(world).verdicts == {"pass": 16}


def test_leases_are_live_late_and_lost(make_world: MakeWorld) -> None:
    world = make_world(40, holdout_share=0.0)
    world.claim(4, worker="slow", ttl_s=30.0)
    world.claim(4, worker="quick", ttl_s=600.0)
    assert (workers(world).n_live, workers(world).n_late, workers(world).n_lost) == (2, 0, 0)
    world.clock.advance(31)
    found = {worker.worker: worker for worker in workers(world).workers}
    assert (found["slow"].n_live, found["slow"].n_late, found["quick"].n_live) == (0, 1, 1)
    again = world.claim(4, worker="slow")
    found = {worker.worker: worker for worker in workers(world).workers}
    assert (found["slow"].n_live, found["slow"].n_late, found["slow"].n_lost) == (1, 0, 1)
    assert again.lease_id is not None
    world.client.release_lease(again.lease_id, token(again))
    assert (workers(world).n_live, workers(world).n_lost) == (1, 1)


def test_the_queue_says_what_waits(make_world: MakeWorld) -> None:
    world = make_world(16, holdout_share=0.0)
    queue = workers(world).queue
    assert (queue.is_wanted, queue.checkpoint_index, queue.oldest_checkpoint_index) == (True, 0, None)
    assert queue.oldest_measured_at is None
    before = world.clock()
    world.measure()
    after = world.clock()
    assert not workers(world).queue.is_wanted
    world.clock.advance(60)
    made = world.new_checkpoint()
    queue = workers(world).queue
    assert (queue.is_wanted, queue.checkpoint_index, queue.waiting_since) == (True, made.index, made.created_at)
    assert queue.oldest_checkpoint_index == 0
    assert queue.oldest_measured_at is not None
    assert before <= queue.oldest_measured_at <= after
    world.claim(16)
    assert not workers(world).queue.is_wanted, "what is leased waits for nobody"


def test_work_that_no_claim_would_get_is_not_wanted(make_world: MakeWorld) -> None:
    world = make_world(16, holdout_share=0.0, samples_per_measurement=100.0)
    for _ in range(2):
        world.measure()
        world.new_checkpoint()
    assert world.measurement.n_due == 16
    assert not workers(world).queue.is_wanted, "workers are a pass over the set ahead of training"


def test_slow_graders_and_answers_are_named(make_world: MakeWorld) -> None:
    world = make_world(6, holdout_share=0.0)
    assert workers(world).graders == []
    lease = world.claim(3)
    slow, *others = leased(lease)
    world.report(lease, [timed(slow, 2.0), *(timed(i, 0.01) for i in others)])
    found = workers(world)
    (grader,) = found.graders
    assert (grader.grader, grader.n_answers, grader.max_s) == ("numeric", 24, pytest.approx(2.007))
    assert grader.mean_s == pytest.approx((2.0 + 0.01 + 0.01) / 3 + 0.0035)
    assert len(found.slowest) == 3, "one a group"
    first = found.slowest[0]
    assert (first.problem_id, first.position, first.grading_s) == (slow, 7, pytest.approx(2.007))


def test_old_minutes_are_dropped(make_world: MakeWorld) -> None:
    world = make_world(8, holdout_share=0.0)
    lease = world.claim(4)
    world.report(lease, [verdict_group(i, [PASS] * 8) for i in leased(lease)])
    world.clock.advance(dt.timedelta(days=8).total_seconds())
    world.claim(1, worker="other")
    assert [worker.worker for worker in workers(world).workers] == ["other"]
