"""Durable draws over HTTP: a service process on SQLite, a client beside it, pools of measured problems.

Every batch is on disk before it is returned, and comes back with ids, pass rates, weights and probabilities. The client
draws, reads the JSON, and acknowledges outside the clock, so that no batch stays open. `under writes`: a
second client leases and reports meanwhile, as rollout workers do. Times are wall seconds of one draw at the client.
"""

import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from app.db.migrate import ensure_current
from app.settings import Settings
from paced import Client, wire

KEY = "benchmark-key"
BATCHES = (256, 1024)
N_SKILLS = 40
GROUPS_A_REPORT = 50
OBSERVATIONS_PER_S = 1000


def run(small: bool) -> dict[str, Any]:
    """Draws at each pool size, and at the largest while reports come in."""
    sizes = (10_000, 100_000) if small else (10_000, 1_000_000)
    n_draws = 60 if small else 300
    rows: list[dict[str, Any]] = []
    for size in sizes:
        with (
            tempfile.TemporaryDirectory(prefix="paced-draw-") as folder,
            _service(Path(folder), size) as (client, curriculum),
        ):
            started = time.perf_counter()
            client.draw_batch(curriculum, 1, include="ids")
            cold_s = time.perf_counter() - started
            rows += [
                {**_timed(client, curriculum, batch, n_draws), "n": size, "cold_load_s": cold_s} for batch in BATCHES
            ]
            with _reports(client, size) as counted:
                started = time.perf_counter()
                row = _timed(client, curriculum, BATCHES[0], 4 * n_draws)
                per_s = counted[0] / (time.perf_counter() - started)
            rows.append({**row, "n": size, "observations_per_s": per_s})
    return {
        "settings": {"sizes": sizes, "batches": BATCHES, "n_draws": n_draws},
        "rows": rows,
        "figures": _figures(rows),
    }


def _figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    quiet = {(row["n"], row["batch"]): row for row in rows if "observations_per_s" not in row}
    busy = [row for row in rows if "observations_per_s" in row]
    small, large = min(n for n, _ in quiet), max(n for n, _ in quiet)
    return {
        "items_per_s": round(1024 / quiet[large, 1024]["median_s"]),
        "items_per_s_256": round(256 / quiet[large, 256]["median_s"]),
        f"time_{large}_over_{small}": round(quiet[large, 256]["median_s"] / quiet[small, 256]["median_s"], 3),
        "p99_over_median_under_writes": round(busy[-1]["p99_s"] / busy[-1]["median_s"], 2),
        "observations_per_s": round(busy[-1]["observations_per_s"]),
        "cold_load_s": round(quiet[large, 256]["cold_load_s"], 2),
    }


def _timed(client: Client, curriculum: str, batch: int, n_draws: int) -> dict[str, Any]:
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


@contextmanager
def _reports(client: Client, size: int) -> Iterator[list[int]]:
    """Lease and report in the background at a steady rate; yields the count of observations."""
    counted, is_over = [0], threading.Event()

    def work() -> None:
        with Client(client.url, KEY) as mine:
            begun = time.perf_counter()
            while not is_over.is_set():
                lease = mine.claim_lease(wire.LeaseClaim(student="s", worker="w", max_problems=GROUPS_A_REPORT))
                answers = [wire.Rollout(text="42", verdict=wire.Verdict.PASS, n_tokens=1)] * 8
                index = lease.checkpoint.index if lease.checkpoint else 0
                groups = [
                    wire.RolloutGroup(problem_id=item.problem_id, checkpoint_index=index, rollouts=answers)
                    for item in lease.problems
                ]
                if not groups:
                    mine.register_checkpoint("s", wire.CheckpointCreate(uri=f"/m/{index + 1}"))
                    continue
                mine.report_rollouts(str(lease.lease_id), wire.LeaseReport(token=str(lease.token), groups=groups))
                counted[0] += len(groups)
                is_over.wait(max(0.0, begun + counted[0] / OBSERVATIONS_PER_S - time.perf_counter()))

    client.register_checkpoint("s", wire.CheckpointCreate(uri=f"/m/next-{size}"))
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield counted
    finally:
        is_over.set()
        thread.join(60)


@contextmanager
def _service(folder: Path, size: int) -> Iterator[tuple[Client, str]]:
    """A service process on a pool of measured problems; yields a client and the curriculum's id."""
    settings = Settings(data=folder)
    ensure_current(settings.database_url)
    _fill(folder / "paced.sqlite3", size)
    command = [
        sys.executable,
        "-m",
        "paced",
        "serve",
        "--data",
        str(folder),
        "--port",
        "0",
        "--json",
        "--log-level",
        "error",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PACED_ADMIN_KEY": KEY})
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        with Client(url, KEY) as client:
            yield client, _curriculum(client, folder / "paced.sqlite3")
    finally:
        process.terminate()
        process.wait(30)


def _curriculum(client: Client, database: Path) -> str:
    client.create_student(wire.StudentCreate(name="s"))
    client.register_checkpoint("s", wire.CheckpointCreate(uri="/m/0"))
    profile = client.create_profile(wire.ProfileCreate())
    body = wire.CurriculumCreate(name="c", student="s", problem_set="p", profile_id=profile.profile_id)
    made = client.create_curriculum(body)
    _measure(database)
    return made.curriculum_id


def _fill(database: Path, size: int) -> None:
    """Problems straight into the tables: importing is another benchmark's business."""
    now = "2026-11-25 08:00:00.000000"
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 65_536, size).tolist()
    columns = (
        "problem_set, ordinal, fingerprint, prompt, answer, grader, tags, source, multiplicity, state, state_version,"
        " import_id, import_count, holdout_key, created_at"
    )
    rows = (
        (
            "p",
            i,
            f"{i:032x}",
            f'"Compute {i} + 1."',
            str(i + 1),
            "math",
            f'["t{i % N_SKILLS}"]',
            "made",
            1,
            "ready",
            0,
            "imp",
            1,
            key,
            now,
        )
        for i, key in enumerate(keys)
    )
    with closing(sqlite3.connect(database)) as conn, conn:
        conn.execute(
            "INSERT INTO problem_sets (name, description, grader, policy, n_problems, n_flagged, n_rows, state_version,"
            " created_at) VALUES ('p', '', 'math', '{}', ?, 0, ?, 0, ?)",
            (size, size, now),
        )
        conn.executemany(f"INSERT INTO problems ({columns}) VALUES ({','.join('?' * 15)})", rows)


def _measure(database: Path) -> None:
    """Every problem measured once, k of 8 spread evenly."""
    with closing(sqlite3.connect(database)) as conn, conn:
        conn.execute(
            "UPDATE estimates SET n_groups = 1, n_counted = 8, last_counted = 8, first_counted = 8,"
            " checkpoint_index = 0,"
            " n_passed = ordinal % 9, last_passed = ordinal % 9, first_passed = ordinal % 9,"
            " discounted_passed = ordinal % 9, discounted_failed = 8 - ordinal % 9, n_failed = 8 - ordinal % 9,"
            " logit_mean = (ordinal % 9 - 4) * 0.7, logit_variance = 0.6"
        )
