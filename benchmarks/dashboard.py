"""Server time of the dashboard's pages over a large log on SQLite while a worker reports; then the first figure's."""

import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from benchmarks import pool
from benchmarks.browsing import first_figure
from paced import Client, wire

STUDENT = "s"
N_BATCHES = 50
BATCH = 256
GROUPS_A_REPORT = 32
# a student that learns: p grows with the checkpoint, harder problems stay behind
LOGGING = """
WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n + 1 < :n_checkpoints)
INSERT INTO observations (measurement_id, problem_id, checkpoint_index, source, lease_id, n_passed, n_counted, n_failed,
    n_truncated, n_timeout, n_grader_error, n_infrastructure, created_at, xact)
SELECT 1, e.problem_id, c.n, CASE WHEN e.ordinal % 4 THEN 'oldest' ELSE 'audit' END, 'lea_' || c.n,
    max(0, min(8, e.ordinal % 9 - 4 + c.n * 8 / :n_checkpoints)), 8,
    8 - max(0, min(8, e.ordinal % 9 - 4 + c.n * 8 / :n_checkpoints)), 0, 0, 0, 0, :now, 0
FROM c CROSS JOIN estimates e WHERE e.measurement_id = 1
"""
LEASING = """
WITH RECURSIVE c(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n + 1 < :n_checkpoints)
INSERT INTO leases (lease_id, measurement_id, worker, token, checkpoint_index, state, n_problems, audit_ids,
    request_hash, created_at, expires_at)
SELECT 'lea_' || n, 1, 'filling', 't', n, 'done', 0, '[]', '', :now, :now FROM c
"""


def run(small: bool) -> dict[str, Any]:
    """Rows by page, and the median and 99th percentile over all requests."""
    size, n_checkpoints, n_rounds = (10_000, 20, 15) if small else (100_000, 50, 40)
    with tempfile.TemporaryDirectory() as folder, pool.service(Path(folder), size) as (client, curriculum_id):
        _fill(client, Path(folder) / "paced.sqlite3", n_checkpoints)
        addresses = _addresses(client, curriculum_id)
        headers = {"Authorization": f"Bearer {pool.KEY}", "Accept": "text/html"}
        with httpx2.Client(base_url=client.url, headers=headers, timeout=600) as browser:
            first_s = _until_counted(browser, addresses["overview"])
            with _reporting(client) as n_reports:
                times = {
                    name: [_timed(browser, address) for _ in range(n_rounds)] for name, address in addresses.items()
                }
            sizes = {name: len(browser.get(address).content) for name, address in addresses.items()}
        seen = first_figure(client.url, pool.KEY, addresses["overview"])
    rows = [_row(name, taken, sizes[name]) for name, taken in times.items()]
    everything = [seconds for taken in times.values() for seconds in taken]
    return {
        "settings": {"problems": size, "observations": size * n_checkpoints, "checkpoints": n_checkpoints},
        "rows": rows,
        "figures": {
            "median_ms": round(1000 * statistics.median(everything), 1),
            "p99_ms": round(1000 * float(np.quantile(everything, 0.99)), 1),
            "slowest_median_ms": max(row["median_ms"] for row in rows),
            "overview_kb": round(sizes["overview"] / 1000, 1),
            "counted_after_s": round(first_s, 1),
            "reports_meanwhile": n_reports[0],
            **seen,
        },
    }


def _row(name: str, taken: list[float], n_bytes: int) -> dict[str, Any]:
    median, p99 = statistics.median(taken), float(np.quantile(taken, 0.99))
    return {"page": name, "median_ms": round(1000 * median, 1), "p99_ms": round(1000 * p99, 1), "bytes": n_bytes}


def _fill(client: Client, database: Path, n_checkpoints: int) -> None:
    """The log straight into the tables; then a new checkpoint, so that there is something to measure."""
    for index in range(1, n_checkpoints + 1):
        client.register_checkpoint(STUDENT, wire.CheckpointCreate(uri=f"/m/{index}"))
    values = {"n_checkpoints": n_checkpoints, "now": "2026-11-25 08:00:00.000000"}
    with closing(sqlite3.connect(database, timeout=600)) as conn, conn:
        conn.execute(LEASING, values)
        conn.execute(LOGGING, values)
        conn.execute(
            "UPDATE estimates SET n_groups = :n, n_counted = 8 * :n, checkpoint_index = :n - 1, belief_index = :n - 1, "
            "n_passed = 4 * :n, n_failed = 4 * :n",
            {"n": n_checkpoints},
        )


def _addresses(client: Client, curriculum_id: str) -> dict[str, str]:
    """Every page, after some draws and a run."""
    run = client.create_run(wire.RunCreate(curriculum_id=curriculum_id, name="run"))
    for _ in range(N_BATCHES):
        batch = client.draw_batch(curriculum_id, BATCH, run_id=run.run_id)
        client.acknowledge(batch.batch_id)
    points = [wire.MetricPoint(step=i, stage=wire.Stage.FORWARD_KL, values={"loss": 1 / (i + 1)}) for i in range(2000)]
    client.append_metrics(run.run_id, points)
    chosen = f"curriculum={curriculum_id}"
    return {
        "overview": f"/overview?{chosen}",
        "problems": f"/problems?{chosen}",
        "problems by query": f"/problems?{chosen}&q=tag:t7+p<0.6+sort:-weight",
        "problem": f"/problems/p/40?{chosen}",
        "workers": f"/workers?{chosen}",
        "curriculum": f"/curricula?{chosen}&gamma=4",
        "batches": f"/batches?{chosen}",
        "batch": f"/batches/{batch.batch_id}",
        "runs": f"/runs?{chosen}",
        "run": f"/runs/{run.run_id}",
        "comparison": f"/runs/compare?{chosen}&run_id={run.run_id}",
    }


def _until_counted(browser: httpx2.Client, address: str) -> float:
    """Seconds from the first look at the overview until all its figures are there."""
    started = time.perf_counter()
    while not browser.get(address.replace("/overview", "/overview.json")).json()["is_complete"]:
        time.sleep(0.2)
    return time.perf_counter() - started


def _timed(browser: httpx2.Client, address: str) -> float:
    started = time.perf_counter()
    browser.get(address).raise_for_status()
    return time.perf_counter() - started


@contextmanager
def _reporting(client: Client) -> Iterator[list[int]]:
    """A worker beside: leases and reports, over and over; yields how often it did."""
    done, n_reports = threading.Event(), [0]

    def work() -> None:
        with Client(client.url, pool.KEY) as worker:
            while not done.is_set():
                lease = worker.claim_lease(
                    wire.LeaseClaim(student=STUDENT, worker="beside", max_problems=GROUPS_A_REPORT)
                )
                if lease.lease_id is None or lease.token is None or lease.checkpoint is None:
                    return
                groups = [_group(item.problem_id, lease.checkpoint.index) for item in lease.problems]
                worker.report_rollouts(lease.lease_id, wire.LeaseReport(token=lease.token, groups=groups))
                n_reports[0] += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield n_reports
    finally:
        done.set()
        thread.join()


def _group(problem_id: int, checkpoint: int) -> wire.RolloutGroup:
    verdicts = [wire.Verdict.PASS if i < problem_id % 9 else wire.Verdict.FAIL for i in range(8)]
    rollouts = [wire.Rollout(text="answer", verdict=verdict, n_tokens=64) for verdict in verdicts]
    return wire.RolloutGroup(problem_id=problem_id, checkpoint_index=checkpoint, rollouts=rollouts)
