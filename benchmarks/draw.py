"""Durable draws over HTTP: a service process on SQLite, a client beside it, pools of measured problems.

Every batch is on disk before it is returned, and comes back with ids, pass rates, weights and probabilities.
`one at a time` is the latency of a draw at the client, under the default preset; `alternating` compares the largest
pool with the smallest, a few draws of each by turns, since machines are noisier than the difference. `streaming`
fetches several batches a request, from two threads, as a data loader that fetches ahead does: as many items are under
way as with the fastest setting of Reverb's streaming sampler, which it is compared with.
Acknowledging is outside the clock: it has no counterpart there. `under writes`: a rollout worker in a process of its
own leases and reports at a steady rate meanwhile. `shares`: where the time of a draw goes, by taking parts away.
"""

import asyncio
import contextlib
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from app.flow.batches.body import encoded
from app.flow.batches.drawing import draw
from app.flow.batches.law import Law
from app.http.idempotency import Idempotency
from app.main import create_app
from app.settings import Settings
from app.telemetry import configure_logs
from benchmarks import peers
from benchmarks.pool import KEY, service
from paced import Client, wire

BATCHES = (256, 1024)
GROUPS_A_REPORT = 64
OBSERVATIONS_PER_S = 1000
N_STREAMS = 2
AHEAD = 8_192  # problems a request
N_TURNS = 12
N_CALLS = 3  # of each stream, between two rounds of acknowledging
PEER_N = 1_000_000


def run(small: bool) -> dict[str, Any]:
    """Draws at each pool size, and at the second largest while reports come in; the peers last, on a quiet machine."""
    sizes = (10_000, 100_000) if small else (10_000, 1_000_000, 10_000_000)
    n_draws = 60 if small else 300
    busy_size = sizes[1]
    rows: list[dict[str, Any]] = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="paced-draw-") as folder:
            against = sizes[0] if size == sizes[-1] else None
            rows += _measure(Path(folder), size, n_draws, is_busy=size == busy_size, against=against)
            print(json.dumps(rows), file=sys.stderr, flush=True)  # long work: nothing is lost if it is stopped
    others = peers.measure(sizes[0] if small else PEER_N, BATCHES, 2.0 if small else 8.0)
    return {
        "settings": {"sizes": sizes, "batches": BATCHES, "n_draws": n_draws, "n_streams": N_STREAMS},
        "rows": [*rows, *others],
        "figures": _figures(rows, others, sizes),
    }


def _measure(
    folder: Path, size: int, n_draws: int, *, is_busy: bool, against: int | None = None
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with service(folder, size) as (client, curriculum):
        started = time.perf_counter()
        client.draw_batch(curriculum, 1, include="ids")
        cold_s = time.perf_counter() - started
        for batch in BATCHES:
            row = {"engine": "paced", "n": size, "batch": batch, "cold_load_s": cold_s}
            rows.append(
                {**row, **_one_at_a_time(client, curriculum, batch, n_draws)}
                | {"items_per_s": _stream(client, curriculum, size, batch, n_draws)}
            )
        if against is not None:
            rows += _alternating(client, curriculum, size, against, n_draws)
        if is_busy:
            with _reports(client.url) as counted:
                started, before = time.perf_counter(), counted.value
                row = _one_at_a_time(client, curriculum, BATCHES[0], 4 * n_draws)
                per_s = (counted.value - before) / (time.perf_counter() - started)
            rows.append({"engine": "paced under writes", "n": size, **row, "observations_per_s": per_s})
    if is_busy:
        rows += [
            {"engine": "shares", "n": size, **_shares(folder, rows[i]["median_s"], b)} for i, b in enumerate(BATCHES)
        ]
    return rows


def _figures(rows: list[dict[str, Any]], others: list[dict[str, Any]], sizes: tuple[int, ...]) -> dict[str, Any]:
    quiet = {(row["n"], row["batch"]): row for row in rows if row["engine"] == "paced"}
    (busy,) = (row for row in rows if row["engine"] == "paced under writes")
    small, middle, large = sizes[0], sizes[1], sizes[-1]
    figures: dict[str, Any] = {
        "items_per_s": round(quiet[middle, 1024]["items_per_s"]),
        "items_per_s_256": round(quiet[middle, 256]["items_per_s"]),
        "draw_ms": round(1000 * quiet[middle, 256]["median_s"], 2),
        **{
            f"time_{large:.0e}_over_{small:.0e}_{row['batch']}".replace("+0", ""): round(row["ratio"], 3)
            for row in rows
            if row["engine"] == "alternating"
        },
        "p99_over_median_under_writes": round(busy["p99_s"] / busy["median_s"], 2),
        "observations_per_s": round(busy["observations_per_s"]),
        **{f"cold_load_{n:.0e}_s".replace("+0", ""): round(quiet[n, 256]["cold_load_s"], 2) for n in sizes[1:]},
    }
    names = {
        ("reverb_streaming", 1024): "items_per_s_over_reverb",
        ("reverb_streaming", 256): "items_per_s_over_reverb_256",
    }
    for row in others:
        name = names.get((row.get("engine", ""), row.get("batch", 0)))
        if name is not None:
            figures[name] = round(quiet[middle, row["batch"]]["items_per_s"] / row["items_per_s"], 2)
    return figures


def _one_at_a_time(client: Client, curriculum: str, batch: int, n_draws: int) -> dict[str, Any]:
    times = []
    for _ in range(n_draws):
        started = time.perf_counter()
        drawn = client.draw_batch(curriculum, batch, include="ids")
        times.append(time.perf_counter() - started)
        assert drawn.size == batch
        client.acknowledge(drawn.batch_id)
    return {
        "batch": batch,
        "median_s": statistics.median(times),
        "p99_s": float(np.quantile(times, 0.99)),
        "n_draws": n_draws,
    }


def _alternating(client: Client, curriculum: str, size: int, against: int, n_draws: int) -> list[dict[str, Any]]:
    """How much longer a draw from this pool takes than one from another of size `against`."""
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="paced-draw-") as folder,
        service(Path(folder), against) as (other, theirs),
    ):
        other.draw_batch(theirs, 1, include="ids")
        sides = (client, curriculum), (other, theirs)
        for batch in BATCHES:
            times = [
                [_one_at_a_time(*side, batch, n_draws // N_TURNS)["median_s"] for side in sides] for _ in range(N_TURNS)
            ]
            ours, others = (statistics.median(column) for column in zip(*times, strict=True))
            rows.append(
                {"engine": "alternating", "n": size, "against": against, "batch": batch, "ratio": ours / others}
            )
    return rows


def _stream(client: Client, curriculum: str, n: int, batch: int, n_draws: int) -> float:
    """Items a second over rounds of requests, two of them under way at once; at most half the pool is in flight."""
    ahead = max(1, min(AHEAD, n // 2 // N_STREAMS // N_CALLS) // batch)
    spent, n_items = 0.0, 0
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(N_STREAMS) as threads:
        clients = [stack.enter_context(Client(client.url, KEY)) for _ in range(N_STREAMS)]

        def fetch(mine: Client) -> list[wire.Batch]:
            return [one for _ in range(N_CALLS) for one in mine.draw_batches(curriculum, batch, ahead, include="ids")]

        while n_items < n_draws * batch:
            started = time.perf_counter()
            drawn = [one for found in threads.map(fetch, clients) for one in found]
            spent += time.perf_counter() - started
            assert all(one.size == batch for one in drawn)
            n_items += batch * len(drawn)
            for one in drawn:
                client.acknowledge(one.batch_id)
    return n_items / spent


def _shares(folder: Path, http_s: float, batch: int) -> dict[str, Any]:
    """Milliseconds of a draw: the draw itself, JSON, the database with its thread, and HTTP with the client."""
    configure_logs("error", as_json=True)

    async def work() -> dict[str, Any]:
        app = create_app(Settings(data=folder))
        async with app.router.lifespan_context(app):
            batches = app.state.batches
            (curriculum, *_) = await app.state.curricula.page(None, None, None, 1)
            request = wire.BatchRequest(size=batch, include="ids")
            whole, json_s, alone = [], [], []
            for i in range(100):
                started = time.perf_counter()
                row = await batches.draw(curriculum.curriculum_id, request, Idempotency(None, "x"))
                drawn = time.perf_counter()
                encoded(row)
                json_s.append(time.perf_counter() - drawn)
                whole.append(drawn - started)
                await batches.acknowledge(row["batch_id"], wire.BatchAck())
                plan = batches._plans[curriculum.curriculum_id]
                started = time.perf_counter()
                with Law(plan.pool, plan.rule, 0.1, app.state.students._clock()) as law:
                    draw(law, plan.subsets, batch, 1, i, plan.memory)
                alone.append(time.perf_counter() - started)
            total, text, pure = (1000 * statistics.median(x) for x in (whole, json_s, alone))
            return {
                "batch": batch,
                "draw_ms": round(pure, 3),
                "json_ms": round(text, 3),
                "database_ms": round(total - pure, 3),
                "http_ms": round(1000 * http_s - total - text, 3),
            }

    return asyncio.run(work())


@contextmanager
def _reports(url: str) -> Iterator[Any]:
    """Lease and report from another process at a steady rate; yields the count of observations."""
    context = multiprocessing.get_context("spawn")
    counted, is_over = context.Value("q", 0), context.Event()
    process = context.Process(target=_report, args=(url, counted, is_over), daemon=True)
    process.start()
    while counted.value < OBSERVATIONS_PER_S:  # it has started, and found its pace
        assert process.is_alive(), "the writer stopped"
        time.sleep(0.1)
    try:
        yield counted
    finally:
        is_over.set()
        process.join(60)


def _report(url: str, counted: Any, is_over: Any) -> None:
    passed, failed = (wire.Rollout(text="42", verdict=v, n_tokens=1) for v in (wire.Verdict.PASS, wire.Verdict.FAIL))
    with Client(url, KEY) as mine:
        answers = [[passed] * k + [failed] * (8 - k) for k in range(9)]
        mine.register_checkpoint("s", wire.CheckpointCreate(uri="/m/next"))
        begun = time.perf_counter()
        while not is_over.is_set():
            lease = mine.claim_lease(wire.LeaseClaim(student="s", worker="w", max_problems=GROUPS_A_REPORT))
            index = lease.checkpoint.index if lease.checkpoint else 0
            groups = [
                wire.RolloutGroup(problem_id=item.problem_id, checkpoint_index=index, rollouts=answers[k])
                for item in lease.problems
                for k in [(item.problem_id - 1) % 9]  # what was measured before
            ]
            if not groups:
                mine.register_checkpoint("s", wire.CheckpointCreate(uri=f"/m/{index + 1}"))
                continue
            mine.report_rollouts(str(lease.lease_id), wire.LeaseReport(token=str(lease.token), groups=groups))
            counted.value += len(groups)
            is_over.wait(max(0.0, begun + counted.value / OBSERVATIONS_PER_S - time.perf_counter()))
