"""A checkpoint that does not descend from the newest one takes every estimate back to its parent."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine, pool, text

from app.db.engine import Database
from app.db.invariants import broken
from app.flow.estimates.branches import FORK_VARIANCE
from app.flow.estimates.forking import Rewinder
from app.flow.estimates.rebuild import RebuildStore, Rebuilt
from app.flow.rollouts.measurements import measurement_number
from app.flow.students.lines import Fork, Line
from paced import Client, wire
from tests.app.conftest import MakeWorld
from tests.app.test_regrading import flipped, second
from tests.app.world import World, at_once, build, group, leased
from tests.service import Service, TestClock, postgres_databases, serve

N = 24
POSTERIOR = (
    "first_passed, first_counted, last_passed, last_counted, discounted_passed, discounted_failed, logit_mean, "
    "logit_variance, ability_seen, belief_index, alone_mean, alone_variance"
)


def descend(world: World, parent: int | None) -> int:
    body = wire.CheckpointCreate(uri="/models/branch", parent_index=parent)
    return world.client.register_checkpoint(world.curriculum.student, body).index


def read(service: Service, statement: str, **values: object) -> list[dict[str, Any]]:
    engine = create_engine(service.settings.database_url, poolclass=pool.NullPool)
    with engine.connect() as conn:
        return [dict(row) for row in conn.execute(text(statement), values).mappings()]


def posterior(world: World) -> list[dict[str, Any]]:
    number = measurement_number(world.curriculum.measurement_id)
    query = f"SELECT {POSTERIOR} FROM estimates WHERE measurement_id = :m ORDER BY ordinal"
    return read(world.service, query, m=number)


def abilities(world: World) -> list[dict[str, Any]]:
    number = measurement_number(world.curriculum.measurement_id)
    return read(world.service, "SELECT * FROM abilities WHERE measurement_id = :m ORDER BY skill", m=number)


def checked(service: Service, *measurement_ids: str) -> list[Rebuilt]:
    """What `paced rebuild --check` finds."""

    async def check() -> list[Rebuilt]:
        async with Database(service.settings.database_url) as db:
            return [await RebuildStore(db).check(measurement_number(each)) for each in measurement_ids]

    return asyncio.run(check())


def assert_is_log(service: Service, *measurement_ids: str) -> None:
    assert [(found.changed, found.n_abilities_changed) for found in checked(service, *measurement_ids)] == [
        ([], 0) for _ in measurement_ids
    ]


def late(world: World, lease: wire.Lease, checkpoint: int, n_passed: int) -> None:
    world.report(lease, [group(i, n_passed, checkpoint=checkpoint) for i in leased(lease)])


def width(estimate: wire.Estimate) -> float:
    assert estimate.interval is not None
    return estimate.interval[1] - estimate.interval[0]


def test_a_line_leaves_out_abandoned_branches_and_their_forks() -> None:
    line = Line.of([Fork(2, 0, 10), Fork(4, 2, 20), Fork(6, 1, 30), Fork(8, 6, 40)])
    assert [fork.index for fork in line.forks] == [6, 8]
    assert [index for index in range(12) if line.holds(index)] == [0, 1, 6, 8, 9, 10, 11]
    nested = Line.of([Fork(8, 6, 40), Fork(5, 3, 20)])
    assert [fork.index for fork in nested.forks] == [5, 8]
    assert [index for index in range(10) if nested.holds(index)] == [0, 1, 2, 3, 5, 6, 8, 9]
    assert all(Line.of([]).holds(index) for index in range(9))


@pytest.mark.parametrize("estimator", ["discounted_beta", "logit_filter", "drift_filter", "plug_in_newest"])
def test_a_rollback_draws_from_the_parents_answers_again(make_world: MakeWorld, estimator: str) -> None:
    world = make_world(N, holdout_share=0.0, estimator={"name": estimator})
    world.measure(lambda _: 3)
    at_parent, rows = world.estimates(), posterior(world)
    first = np.array(world.draw(8).pass_rate)
    descend(world, 0)
    world.measure(lambda i: 7 + i % 2)
    assert np.mean(world.draw(8).pass_rate) > first.mean() + 0.2
    index = descend(world, 0)

    estimates, after = world.estimates(), posterior(world)
    assert np.array(world.draw(8).pass_rate) == pytest.approx(first, abs=0.03)
    assert world.client.frontier(world.curriculum.measurement_id).mean == 3 / 8
    for problem_id, estimate in estimates.items():
        assert (estimate.last_passed, estimate.last_counted) == (3, 8)
        assert (estimate.n_groups, estimate.n_counted) == (2, 16)
        assert width(estimate) > width(at_parent[problem_id])
    for old, new in zip(rows, after, strict=True):
        halved = {name: 0.5 * old[name] for name in ("discounted_passed", "discounted_failed")}
        wider = {name: old[name] + FORK_VARIANCE for name in ("logit_variance", "alone_variance")}
        assert new == {**old, **halved, **wider, "belief_index": index}
    assert_is_log(world.service, world.curriculum.measurement_id)


def test_late_reports_of_an_abandoned_branch_count_in_totals_alone(make_world: MakeWorld) -> None:
    world = make_world(N, holdout_share=0.0, estimator={"name": "drift_filter"})
    world.measure(lambda _: 3)
    world.new_checkpoint()
    lease = world.claim(10)
    world.measure(lambda _: 8)
    descend(world, 0)
    before, levels = posterior(world), abilities(world)
    drawn = sorted(world.draw(6).pass_rate)
    late(world, lease, 1, 8)
    estimates = world.estimates()
    assert [(e.n_groups, e.n_passed, e.last_passed) for i, e in estimates.items() if i in leased(lease)] == [
        (2, 11, 3)
    ] * 10
    assert posterior(world) == before
    assert [{**row, "n_groups": 0} for row in abilities(world)] == [{**row, "n_groups": 0} for row in levels]
    assert sorted(world.draw(6).pass_rate) == pytest.approx(drawn, abs=0.03)
    assert_is_log(world.service, world.curriculum.measurement_id)
    assert world.measure(lambda _: 6) == N  # all are due at the new checkpoint
    assert {e.last_passed for e in world.estimates().values()} == {6}
    assert_is_log(world.service, world.curriculum.measurement_id)


def test_what_only_an_abandoned_branch_measured_is_unknown_again(make_world: MakeWorld) -> None:
    world = make_world(N, holdout_share=0.0)
    few = world.claim(5)
    late(world, few, 0, 4)
    world.new_checkpoint()
    world.measure(lambda _: 7)
    descend(world, 0)
    known = {i: e.pass_rate for i, e in world.estimates().items() if e.pass_rate is not None}
    assert set(known) == set(leased(few))
    assert all(e.n_groups and e.interval is None for i, e in world.estimates().items() if i not in known)
    assert_is_log(world.service, world.curriculum.measurement_id)


def test_nested_forks_are_the_fold_of_the_log(make_world: MakeWorld) -> None:
    """Branches of branches, late reports on each, outcomes of a trainer, and a second measurement regraded."""
    world = make_world(N, holdout_share=0.25)
    other = second(world).measurement_id
    ids = (world.curriculum.measurement_id, other)
    world.measure()
    parents: Sequence[int | None] = (None, 0, None, 2, 1, None, 0, 7)
    for turn, parent in enumerate(parents):
        lease = world.claim(6)
        index = descend(world, parent)
        assert_is_log(world.service, *ids)
        if lease.checkpoint is not None:
            late(world, lease, lease.checkpoint.index, turn % 9)
        world.measure(lambda i, turn=turn: (i + 3 * turn) % 9, size=7)
        batch = world.draw(4)
        outcomes = [
            wire.Outcome(problem_id=p, checkpoint_index=index, n_passed=1, n_failed=3) for p in batch.problem_id
        ]
        world.client.acknowledge(batch.batch_id, outcomes)
        if turn % 3 == 0:
            stored = list(world.client.groups(ids[0], missing_in=other))
            world.client.regrade(other, [flipped(each, 1) for each in stored])
        assert_is_log(world.service, *ids)
    assert broken(world.service.settings.database_url) == {}


def test_a_linear_history_is_untouched(make_world: MakeWorld) -> None:
    world = make_world(N, holdout_share=0.0)
    world.measure()
    before = posterior(world), abilities(world)
    descend(world, 0)
    descend(world, None)
    assert (posterior(world), abilities(world)) == before
    student = world.curriculum.student
    forks = read(world.service, "SELECT forked_after FROM checkpoints WHERE student = :s", s=student)
    assert [row["forked_after"] for row in forks] == [None] * 3


def test_a_fork_is_registered_once(make_world: MakeWorld) -> None:
    world = make_world(N, holdout_share=0.0)
    world.measure()
    world.new_checkpoint()
    body = wire.CheckpointCreate(uri="/models/branch", parent_index=0)
    made = [world.client.register_checkpoint(world.curriculum.student, body, "the same") for _ in range(2)]
    assert made[0] == made[1]
    assert len(list(world.client.checkpoints(world.curriculum.student))) == 3
    assert_is_log(world.service, world.curriculum.measurement_id)


def test_a_report_that_waits_for_a_fork_follows_the_new_line(tmp_path: Path) -> None:
    with postgres_databases() as url, serve(tmp_path, url) as service, service.client() as client:
        world = World(service, client, TestClock(), build(client, tmp_path, N, holdout_share=0.0))
        world.measure(lambda _: 3)
        world.new_checkpoint()
        lease = world.claim(8)
        engine = create_engine(service.settings.database_url, poolclass=pool.NullPool)
        with engine.connect() as conn, ThreadPoolExecutor(1) as thread:
            after = Rewinder().fork(conn, "tiny", 2, 0)
            values = "('tiny', 2, '/x', 0, :after, '', now())"
            columns = '(student, "index", uri, parent_index, forked_after, request_hash, created_at)'
            conn.execute(text(f"INSERT INTO checkpoints {columns} VALUES {values}"), {"after": after})
            waiting = thread.submit(late, world, lease, 1, 8)
            time.sleep(0.3)
            assert not waiting.done()
            conn.commit()
            waiting.result(10)
        assert {e.last_passed for e in world.estimates().values()} == {3}
        assert sum(e.n_groups for e in world.estimates().values()) == N + 8
        assert_is_log(service, world.curriculum.measurement_id)


def report_until(client: Client, i: int, until: float) -> None:
    while time.monotonic() < until:
        lease = client.claim_lease(wire.LeaseClaim(student="tiny", worker=str(i), max_problems=3))
        if lease.checkpoint is None or lease.lease_id is None:
            time.sleep(0.005)
            continue
        index = lease.checkpoint.index
        groups = [group(item.problem_id, (i + index) % 9, checkpoint=index) for item in lease.problems]
        client.report_rollouts(lease.lease_id, wire.LeaseReport(token=str(lease.token), groups=groups))


def fork_until(client: Client, until: float) -> None:
    newest = 0
    while time.monotonic() < until:
        body = wire.CheckpointCreate(uri="/models/branch", parent_index=max(newest - newest % 3, 0))
        newest = client.register_checkpoint("tiny", body).index
        time.sleep(0.1)


def test_another_process_draws_from_the_parent_too(tmp_path: Path) -> None:
    """Two processes on PostgreSQL: reports and forks at once, and each process draws what the log says."""
    with postgres_databases() as url, ExitStack() as stack:
        services = [stack.enter_context(serve(tmp_path / name, url)) for name in ("a", "b")]
        clients = [stack.enter_context(services[i % 2].client(retry_s=5.0)) for i in range(4)]
        curriculum = build(clients[0], tmp_path, 60, holdout_share=0.0, estimator={"name": "drift_filter"})
        for client in clients[:2]:
            client.draw_batch(curriculum.curriculum_id, 1)
        until = time.monotonic() + 3
        at_once(4, lambda i: report_until(clients[i], i, until) if i else fork_until(clients[i], until))
        time.sleep(0.6)
        assert_is_log(services[0], curriculum.measurement_id)
        assert broken(services[0].settings.database_url) == {}
        number = measurement_number(curriculum.measurement_id)
        for client in clients[:2]:
            client.draw_batch(curriculum.curriculum_id, 1)
        first, other = (service.app.state.estimates._pools._pools[number] for service in services)
        assert first.fork_index == other.fork_index > 3
        for name in ("last_passed", "discounted_passed", "logit_mean", "logit_variance", "ability_seen", "levels"):
            assert getattr(first.columns, name).tolist() == getattr(other.columns, name).tolist()
        rows = read(
            services[0], "SELECT logit_mean FROM estimates WHERE measurement_id = :m ORDER BY ordinal", m=number
        )
        assert first.columns.logit_mean.tolist() == [row["logit_mean"] for row in rows]
