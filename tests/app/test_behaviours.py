"""What users of other systems run into, shown not to happen here, on either database.

What other tests show in full is not repeated:

- answers cut at the token limit are counted apart from wrong ones:
  `test_truncated_answers_are_counted_apart_or_as_fail` in test_leases.py, and for a trainer's outcomes
  `test_outcomes_are_counted_once` in test_batches.py;
- weighted sampling from a stock TRL run, without a fork:
  `test_prompts_follow_the_weights_and_nothing_else_differs_from_trl_alone` in
  tests/paced/integrations/test_trl_grpo.py, which also has a shaped reward beside the judge, and
  `test_grpo_trains_on_weighted_batches_and_reports` in tests/paced/integrations/test_trl.py;
- a trainer dies after fetching a batch: `test_an_unacknowledged_batch_expires_and_its_problems_return_once` in
  test_batches.py (the problems return, once), `test_killed_and_resumed_each_draw_is_consumed_once` in
  tests/paced/integrations/test_pytorch.py (the trainer returns first: no step skipped or doubled), and
  `test_a_grpo_run_that_dies_with_a_batch_goes_on_with_it` in tests/paced/integrations/test_trl.py (the same of TRL);
- the same seed and state give the same batches after a restart: `test_a_restart_changes_nothing` in test_batches.py;
- a problem that starts to fail after it was measured is set aside, with a back-off that doubles:
  `test_problems_that_keep_failing_are_set_aside_with_a_reason` in test_leases.py.
"""

import re
import time
from typing import Any

import httpx2
import numpy as np
import pytest
from scipy.special import betaln

from paced import wire
from paced.errors import LeaseLost
from paced.wire import Verdict
from tests.app.conftest import MakeWorld
from tests.app.problem_details import assert_problem
from tests.app.world import World, group, leased, token, verdict_group
from tests.service import ADMIN_KEY

PLUG_IN = {"name": "plug_in_newest"}
JEFFREYS = {"name": "discounted_beta", "prior_a": 0.5, "prior_b": 0.5}


def change(world: World, **fields: Any) -> wire.Curriculum:
    body = wire.CurriculumUpdate.model_validate(fields)
    return world.client.update_curriculum(world.curriculum.curriculum_id, body)


def finish(world: World, batch: wire.Batch, n_passed: dict[int, int] | None = None) -> None:
    """Acknowledge; `n_passed` gives outcomes of eight answers by problem id."""
    latest = world.client.student(world.curriculum.student).latest_checkpoint
    assert latest is not None
    outcomes = [
        wire.Outcome(problem_id=i, checkpoint_index=latest.index, n_passed=k, n_failed=8 - k)
        for i, k in (n_passed or {}).items()
    ]
    world.client.acknowledge(batch.batch_id, outcomes)


def chances(world: World, n_passed: dict[int, int] | None = None) -> dict[int, float]:
    """The chance of every problem in the first place of a draw; the batch that shows them is acknowledged."""
    batch = world.draw(len(world.problem_ids()), include="ids")
    finish(world, batch, n_passed)
    return dict(zip(batch.problem_id, batch.draw_probability, strict=True))


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"estimator": {"name": "drift_filter"}},
        {"estimator": {"name": "logit_filter"}},
        {"estimator": PLUG_IN, "retest_share": 0.05},
    ],
    ids=["default", "drift_filter", "logit_filter", "plug_in_with_retest_share"],
)
def test_mastered_problems_keep_a_small_share_and_come_back_when_they_regress(
    make_world: MakeWorld, rule: dict[str, Any]
) -> None:
    """Stable p = 1 neither drains away nor is sampled without end, and a regression that a draw finds undoes it."""
    world = make_world(40, holdout_share=0.0, **rule)
    ids = world.problem_ids()
    mastered, frontier = ids[:20], ids[20:]
    for _ in range(3):
        world.measure(lambda i: 8 if i in mastered else 4)
        world.new_checkpoint()
    before = chances(world)
    share = sum(before[i] for i in mastered)
    assert 0.005 < share < 0.1
    assert min(before[i] for i in mastered) > 0

    found: list[int] = []
    for _ in range(400):  # about ten are needed
        batch = world.draw(5, include="ids")
        finish(world, batch)
        found = [i for i in batch.problem_id if i in mastered]
        if found:
            break
    (regressed, *_) = found
    chances(world, {regressed: 3})
    after = chances(world)
    usual = np.mean([after[i] for i in frontier])
    others = np.mean([after[i] for i in mastered if i != regressed])
    assert after[regressed] > 0.3 * usual > 3 * others, "as likely as the frontier again, and by itself"


def test_a_problem_that_always_errors_takes_no_slot_though_it_was_never_measured(make_world: MakeWorld) -> None:
    world = make_world(12, holdout_share=0.0)
    victim, lost = world.problem_ids()[0], [Verdict.INFRASTRUCTURE] * 8

    def work(index: int, n: int = 12) -> list[int]:
        """Claim and report everything; returns what was leased."""
        lease = world.claim(n)
        if lease.lease_id is not None:
            groups = [
                verdict_group(i, lost, index) if i == victim else group(i, 4, checkpoint=index) for i in leased(lease)
            ]
            world.report(lease, groups)
        return leased(lease)

    assert [len(work(0)) for _ in range(4)] == [12, 1, 1, 0], "two more chances, then none"
    estimate = world.estimate(victim)
    assert estimate.quarantine_reason == "3 groups in a row gave no verdict: 8 × infrastructure"
    assert (estimate.pass_rate, estimate.n_counted, estimate.verdicts["infrastructure"]) == (None, 0, 24)
    assert (world.measurement.n_quarantined, world.measurement.n_due) == (1, 0)
    batch = world.draw(12)
    assert batch.shortfall is not None
    assert (batch.size, batch.shortfall.n_quarantined) == (11, 1)
    finish(world, batch)

    world.new_checkpoint()
    assert victim not in work(1), "nor at the next checkpoint"
    for wait_s in (600, 1200, 2400):
        world.clock.advance(wait_s - 30)
        assert work(1) == []
        world.clock.advance(31)
        assert work(1) == [victim], "tried again, later each time"


def test_every_pass_rate_at_an_end_is_answered_at_once(make_world: MakeWorld) -> None:
    """A typed shortfall where every weight is 0; a batch where a posterior or a retest share leaves any."""
    world = make_world(20, holdout_share=0.0, estimator=PLUG_IN)
    world.measure(lambda i: 8 * (i % 2))
    started = time.monotonic()
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with httpx2.Client(base_url=world.client.url, headers=headers) as http:
        refused = http.post(f"/v1/curricula/{world.curriculum.curriculum_id}/batches", json={"size": 8})
    assert_problem(refused, 409, "no_eligible_problems")
    shortfall = wire.Shortfall.model_validate(refused.json()["shortfall"])
    assert shortfall.n_zero_weight == shortfall.n_problems == 20
    assert (shortfall.n_requested, shortfall.n_returned) == (8, 0)
    for rule in ({"retest_share": 0.1}, {"retest_share": 0.0, "estimator": JEFFREYS}):
        change(world, **rule)
        batch = world.draw(8)
        assert (batch.size, batch.shortfall) == (8, None)
        finish(world, batch)
    assert time.monotonic() - started < 10


def test_the_next_batch_follows_a_changed_alpha_beta_gamma_and_band(make_world: MakeWorld) -> None:
    world = make_world(30, holdout_share=0.0, estimator=JEFFREYS)
    world.measure(lambda i: i % 9)
    alpha, beta, gamma, band = 1.0, 1.0, 2.0, (0.0, 1.0)
    changes: list[dict[str, Any]] = [
        {},
        {"kernel": {"alpha": 3.0}},
        {"kernel": {"alpha": 3.0, "beta": 0.5}},
        {"gamma": 1.0},
        {"filters": {"band": [0.3, 0.7]}},
    ]
    for version, fields in enumerate(changes, 1):
        if fields:
            assert change(world, **fields).version == version
        kernel = fields.get("kernel", {"alpha": alpha, "beta": beta})
        alpha, beta = kernel.get("alpha", 1.0), kernel.get("beta", 1.0)
        gamma, band = fields.get("gamma", gamma), fields.get("filters", {}).get("band", band)
        batch = world.draw(30)
        assert batch.curriculum_version == version
        finish(world, batch)

        ids = np.array(world.problem_ids())
        a, b = 0.5 + ids % 9, 8.5 - ids % 9
        is_inside = (a / (a + b) > band[0]) & (a / (a + b) < band[1])
        law = np.exp(gamma * (betaln(a + alpha, b + beta) - betaln(a, b))) * is_inside
        assert sorted(batch.problem_id) == ids[is_inside].tolist()
        expected = dict(zip(ids.tolist(), (law / law.sum()).tolist(), strict=True))
        assert batch.draw_probability == pytest.approx([expected[i] for i in batch.problem_id], rel=1e-5)
        assert (0 if batch.shortfall is None else batch.shortfall.n_filtered) == (~is_inside).sum()


def test_a_shaped_reward_is_refused_and_p_comes_from_the_binary_outcome(make_world: MakeWorld) -> None:
    """Neither a batch's outcomes nor a lease's rollouts have a place for one; `passes` of `observed` is TRL's side."""
    world = make_world(6, holdout_share=0.0)
    batch, lease = world.draw(2), world.claim(1)
    one, two = batch.problem_id
    outcome = {"problem_id": one, "checkpoint_index": 0, "n_passed": 1, "n_failed": 3}
    rollout = {"text": "?", "verdict": "fail", "n_tokens": 1}
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with httpx2.Client(base_url=world.client.url, headers=headers) as http:
        for shaped in ({"reward": 0.7}, {"n_passed": 1.7}, {"n_passed": [0.2, 0.9]}):
            refused = http.post(f"/v1/batches/{batch.batch_id}/ack", json={"outcomes": [{**outcome, **shaped}]})
            assert_problem(refused, 422, "unknown_field" if "reward" in shaped else "validation_failed")
        for shaped in ({"reward": 0.7}, {"verdict": 0.7}, {"verdict": "0.7"}):
            group_ = {"problem_id": leased(lease)[0], "checkpoint_index": 0, "rollouts": [{**rollout, **shaped}]}
            body = {"token": lease.token, "groups": [group_]}
            refused = http.post(f"/v1/rollout-leases/{lease.lease_id}/report", json=body)
            assert_problem(refused, 422, "unknown_field" if "reward" in shaped else "validation_failed")
    assert world.client.batch(batch.batch_id).state == "open"
    assert {e.n_groups for e in world.estimates().values()} == {0}
    finish(world, batch, {one: 2, two: 7})
    found = [world.estimate(i) for i in (one, two)]
    assert [(estimate.last_passed, estimate.last_counted) for estimate in found] == [(2, 8), (7, 8)]
    assert [estimate.pass_rate for estimate in found] == pytest.approx([2.5 / 9, 7.5 / 9])


def sibling(world: World, **fields: Any) -> World:
    """A second curriculum of the same student and set."""
    first = world.curriculum
    body = {"student": first.student, "problem_set": first.problem_set, "profile_id": first.profile_id}
    made = world.client.create_curriculum(
        wire.CurriculumCreate.model_validate({**body, "name": f"{first.name}-2", "holdout_share": 0.0, **fields})
    )
    return World(world.service, world.client, world.clock, made)


def measure_all(world: World, n_passed: int) -> None:
    """Measure the world's own measurement, not the student's others."""
    lease = world.claim(100, measurement_id=world.curriculum.measurement_id)
    world.report(lease, [group(i, n_passed) for i in leased(lease)])


def test_two_profiles_never_mix_in_estimates_or_batches(make_world: MakeWorld) -> None:
    """Profiles that differ in a stop string or the prompt alone keep pass rates of their own."""
    world = make_world(10, holdout_share=0.0, estimator=PLUG_IN)
    profiles = [
        world.client.create_profile(wire.ProfileCreate.model_validate({"max_tokens": 16, **fields})).profile_id
        for fields in ({}, {"stop": ["\n"]}, {"prompt_template": "Q: {prompt}\nA:"})
    ]
    assert profiles[0] == world.curriculum.profile_id
    worlds = [world] + [
        sibling(world, name=f"{world.curriculum.name}-{i}", profile_id=profiles[i], estimator=PLUG_IN) for i in (1, 2)
    ]
    assert len({one.curriculum.measurement_id for one in worlds}) == 3
    for one, n_passed in zip(worlds, (2, 4, 6), strict=True):
        measure_all(one, n_passed)
    for one, n_passed in zip(worlds, (2, 4, 6), strict=True):
        batch = one.draw(10)
        assert batch.pass_rate == [n_passed / 8] * 10
        assert {e.n_passed for e in one.estimates().values()} == {n_passed}
        finish(one, batch, {batch.problem_id[0]: 8})
    for one, n_passed in zip(worlds, (2, 4, 6), strict=True):
        assert sorted(e.n_passed for e in one.estimates().values()) == [n_passed] * 9 + [n_passed + 8]


def test_a_band_that_admits_too_few_is_warned_about_when_it_is_set(make_world: MakeWorld) -> None:
    world = make_world(40, holdout_share=0.0, estimator=PLUG_IN)
    world.measure(lambda i: i % 9)
    n = sum(i % 9 == 4 for i in world.problem_ids())
    narrow = {"filters": {"band": [0.45, 0.55]}}
    assert world.curriculum.warnings == []
    for warned in (sibling(world, estimator=PLUG_IN, **narrow).curriculum, change(world, **narrow)):
        (warning,) = warned.warnings
        assert re.search(rf"\b{n} of 40 problems", warning)
    batch = world.draw(8)
    assert batch.shortfall is not None
    assert (batch.size, batch.shortfall.n_filtered) == (n, 40 - n)
    assert change(world, filters={"band": [0.1, 0.9]}).warnings == [], "enough for its batches of 8"


def test_measuring_a_whole_set_resumes_after_a_kill(make_world: MakeWorld) -> None:
    """Every problem is measured once, whatever a worker that died had reported."""
    world = make_world(60, holdout_share=0.0)
    done = world.claim(20)
    world.report(done, [group(i, 1) for i in leased(done)])
    killed = world.claim(20, ttl_s=60)
    world.report(killed, [group(i, 2) for i in leased(killed)[:7]])
    assert world.measure(lambda _: 3) == 20, "what the dead worker holds is left alone"
    assert (world.measurement.n_at_latest, world.measurement.n_leased) == (47, 13)
    world.clock.advance(61)
    assert world.measure(lambda _: 4) == 13
    estimates = world.estimates()
    assert {e.n_groups for e in estimates.values()} == {1}
    assert [estimates[i].n_passed for i in leased(killed)] == [2] * 7 + [4] * 13
    assert (world.measurement.n_at_latest, world.measurement.n_due, world.measurement.n_leased) == (60, 0, 0)


def test_a_second_run_and_a_second_curriculum_find_what_the_first_learnt(make_world: MakeWorld) -> None:
    world = make_world(12, holdout_share=0.0, estimator=PLUG_IN)
    world.measure(lambda _: 4)

    def step(one: World, name: str) -> dict[int, float]:
        """A run's first batch, by problem; the outcome of its first problem is 6 of 8."""
        run = one.client.create_run(wire.RunCreate(curriculum_id=one.curriculum.curriculum_id, name=name))
        batch = one.draw(12, run_id=run.run_id)
        finish(one, batch, {min(set(batch.problem_id) - set(learnt)): 6})
        return dict(zip(batch.problem_id, batch.pass_rate, strict=True))

    learnt: list[int] = []
    for one, name in ((world, "first"), (world, "second"), (sibling(world, estimator=PLUG_IN), "third")):
        rates = step(one, name)
        assert {i: p for i, p in rates.items() if p != 0.5} == dict.fromkeys(learnt, 0.75)
        learnt.append(min(set(rates) - set(learnt)))
        assert one.curriculum.measurement_id == world.curriculum.measurement_id
        assert world.claim().lease_id is None, "nothing is measured again"


def test_the_one_rollout_of_512_that_is_missing_is_named_and_dispatched_again(make_world: MakeWorld) -> None:
    world = make_world(512, holdout_share=0.0, n_rollouts=1)
    leases = [world.claim(64, ttl_s=60) for _ in range(8)]
    missing = leased(leases[5])[-1]
    receipts = [world.report(lease, [group(i, 1, 1) for i in leased(lease) if i != missing]) for lease in leases]
    assert sum(receipt.n_accepted for receipt in receipts) == 511
    open_ones = [(receipt.lease_id, receipt.n_open) for receipt in receipts if receipt.state == "active"]
    assert open_ones == [(leases[5].lease_id, 1)]
    (late,) = world.client.leases(world.curriculum.measurement_id)
    assert (late.lease_id, late.missing_problem_ids, late.is_late) == (leases[5].lease_id, [missing], False)
    progress = world.measurement
    assert (progress.n_at_latest, progress.n_leased, progress.n_due) == (511, 1, 0)
    assert world.claim().lease_id is None

    world.clock.advance(61)
    assert (world.measurement.n_leased, world.measurement.n_due) == (0, 1)
    assert [lease.is_late for lease in world.client.leases(world.curriculum.measurement_id)] == [True]
    again = world.claim()
    assert leased(again) == [missing]
    with pytest.raises(LeaseLost, match=str(leases[5].lease_id)) as caught:
        world.report(leases[5], [group(missing, 0, 1)])
    assert caught.value.members["state"] == "expired"
    with pytest.raises(LeaseLost):
        world.client.renew_lease(str(leases[5].lease_id), token(leases[5]))
    assert world.report(again, [group(missing, 1, 1)]).state == "done"
    assert world.measurement.n_at_latest == 512
    assert {e.n_groups for e in world.client.estimates(world.curriculum.measurement_id)} == {1}
