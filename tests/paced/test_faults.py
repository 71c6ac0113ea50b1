"""Thousands of draws against a service that fails at random: no batch is lost, none is doubled, and it ends in time."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from paced import AsyncClient, Client, wire
from tests.app.world import build
from tests.paced.faults import FAULTS, Faulty, faulty
from tests.service import ADMIN_KEY, Service, serve

N_THREADS = 8
STALL_S, TIMEOUT_S = 3.0, 0.75


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serve(tmp_path / "data", None) as running:
        yield running


@pytest.fixture
def bad(service: Service) -> Iterator[Faulty]:
    with faulty(service.url, share=0.2, stall_s=STALL_S) as running:
        yield running


@pytest.fixture
def curriculum(service: Service, tmp_path: Path) -> wire.Curriculum:
    with service.client() as client:
        return build(client, tmp_path, 400, holdout_share=0.0, batch_ttl_s=3600)


def check(service: Service, curriculum: wire.Curriculum, received: list[wire.Batch]) -> None:
    """What came back is the service's whole log: each batch once, all acknowledged."""
    with service.client() as client:
        log = list(client.batches(curriculum.curriculum_id, limit=1000))
    assert Counter(batch.batch_id for batch in received) == Counter(batch.batch_id for batch in log)
    assert {batch.state for batch in log} == {wire.BatchState.ACKNOWLEDGED}
    stored = {batch.batch_id: batch.problem_id for batch in log}
    assert all(stored[batch.batch_id] == batch.problem_id for batch in received)


@pytest.mark.slow
def test_3000_draws_none_lost_none_doubled(service: Service, bad: Faulty, curriculum: wire.Curriculum) -> None:
    n_draws = 3000
    longest = 0.0
    with Client(bad.url, ADMIN_KEY, timeout_s=TIMEOUT_S, retry_s=60.0) as client, ThreadPoolExecutor(N_THREADS) as pool:

        def one(i: int) -> wire.Batch:
            nonlocal longest
            started = time.monotonic()
            batch = client.draw_batch(curriculum.curriculum_id, 4, key=f"draw-{i}" if i % 2 else None, include="ids")
            client.acknowledge(batch.batch_id)
            longest = max(longest, time.monotonic() - started)
            return batch

        started = time.monotonic()
        received = list(pool.map(one, range(n_draws)))
        total_s = time.monotonic() - started
    check(service, curriculum, received)
    assert len(received) == n_draws
    assert all(bad.done[fault] > 100 for fault in FAULTS), bad.done
    assert longest < 60, "one call took longer than its tries may"
    # each stall costs its time-out and each fault a back-off of tenths of a second, shared by the threads
    n_faults = sum(bad.done[fault] for fault in FAULTS)
    bound_s = 3 * (bad.done["stall"] * TIMEOUT_S + n_faults * 0.2) / N_THREADS + 0.04 * bad.done.total()
    print(f"{n_draws} draws and acknowledgements in {total_s:.1f} s, longest {longest:.1f} s, {dict(bad.done)}")
    assert total_s < bound_s, (total_s, bound_s)


async def test_async_draws_none_lost_none_doubled(service: Service, bad: Faulty, curriculum: wire.Curriculum) -> None:
    async with AsyncClient(bad.url, ADMIN_KEY, timeout_s=TIMEOUT_S, retry_s=60.0) as client:

        async def one() -> wire.Batch:
            batch = await client.draw_batch(curriculum.curriculum_id, 4, include="ids")
            await client.acknowledge(batch.batch_id)
            return batch

        received = await asyncio.gather(*(one() for _ in range(60)))
    check(service, curriculum, received)


def test_without_a_key_that_stays_the_same_draws_double(
    service: Service, bad: Faulty, curriculum: wire.Curriculum
) -> None:
    """What the keys are for: a trainer that tries again by itself, under a new key, leaves batches nobody holds."""
    bad.share = 0.5
    received = []
    with Client(bad.url, ADMIN_KEY, timeout_s=TIMEOUT_S, retry_s=0.0) as client:
        while len(received) < 20:
            try:
                received.append(client.draw_batch(curriculum.curriculum_id, 4, include="ids"))
            except Exception:
                continue
    with service.client() as direct:
        n_logged = len(list(direct.batches(curriculum.curriculum_id)))
    assert n_logged > len(received)
