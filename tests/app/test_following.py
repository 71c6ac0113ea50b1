"""Two API processes on one PostgreSQL: each draws from what the other counted."""

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psycopg

from app.db.engine import Database
from app.flow.estimates.following import ChangeStore
from app.flow.estimates.store import Change
from app.flow.rollouts.measurements import measurement_number
from paced import Client, wire
from tests.app.world import at_once, build, group, measure
from tests.service import Service, postgres_databases, serve

N = 120


def known_groups(service: Service, number: int) -> list[int]:
    """Groups of each problem that a process draws from."""
    pools = dict(service.app.state.estimates._pools._pools)
    return [int(n) for n in pools[number].n_groups]


def work(client: Client, i: int, until: float) -> int:
    """Lease and report in small pieces; returns the number of groups."""
    n_groups = 0
    while time.monotonic() < until or n_groups <= N // 4:
        lease = client.claim_lease(wire.LeaseClaim(student="tiny", worker=str(i), max_problems=3))
        if not lease.problems or lease.checkpoint is None:
            client.register_checkpoint("tiny", wire.CheckpointCreate(uri="/models/tiny/next"))
            continue
        index = lease.checkpoint.index
        groups = [group(item.problem_id, (i + index) % 9, checkpoint=index) for item in lease.problems]
        client.report_rollouts(str(lease.lease_id), wire.LeaseReport(token=str(lease.token), groups=groups))
        n_groups += len(groups)
    return n_groups


def test_no_observation_of_another_process_is_missed(tmp_path: Path) -> None:
    """Four writers on two processes: both arrays are the table's rows within a second of the last commit."""
    with postgres_databases() as url, ExitStack() as stack:
        services = [stack.enter_context(serve(tmp_path / name, url)) for name in ("a", "b")]
        clients = [stack.enter_context(services[i % 2].client()) for i in range(4)]
        curriculum = build(clients[0], tmp_path, N, holdout_share=0.0, estimator={"name": "drift_filter"})
        number = measurement_number(curriculum.measurement_id)
        for client in clients[:2]:  # both load their arrays before there is anything to know
            client.draw_batch(curriculum.curriculum_id, 1)
        until = time.monotonic() + 4
        jobs: list[Callable[[], int]] = [lambda i=i: work(clients[i], i, until) for i in range(4)]
        n_groups = sum(at_once(4, lambda i: jobs[i]()))
        time.sleep(1.0)
        rows = {e.ordinal: e for e in clients[0].estimates(curriculum.measurement_id, limit=1000)}
        committed = [rows[ordinal].n_groups for ordinal in range(N)]
        assert sum(committed) == n_groups > N
        for service in services:
            assert known_groups(service, number) == committed
        first, second = (service.app.state.estimates._pools._pools[number] for service in services)
        for name in ("last_passed", "discounted_passed", "logit_mean", "ability_seen", "levels"):
            assert getattr(first.columns, name).tolist() == getattr(second.columns, name).tolist()
        assert first.columns.now_index == second.columns.now_index
        assert first.watermark == second.watermark


def test_what_was_restored_from_another_cluster_is_no_news(tmp_path: Path) -> None:
    """Transaction numbers of the dump are far ahead of the new cluster's."""
    with postgres_databases() as url, serve(tmp_path / "a", url) as service, service.client() as client:
        curriculum = build(client, tmp_path, 20, holdout_share=0.0)
        measure(client)
        with psycopg.connect(url, autocommit=True) as conn:
            (old,) = conn.execute("SELECT pg_current_snapshot()::text").fetchone() or ("",)
            conn.execute("UPDATE observations SET xact = 8000000000000000000")
        number = measurement_number(curriculum.measurement_id)

        async def since() -> Change | None:
            async with Database(service.settings.database_url) as db:
                return (await ChangeStore(db).since(number, old))[1]

        assert asyncio.run(since()) is None
