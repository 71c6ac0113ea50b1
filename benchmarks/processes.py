"""Two API processes on one PostgreSQL, four writers: what each process knows of the others' observations, and when.

Writers lease and report through both processes without a pause; each commit is timed at the writer. Meanwhile the
number of groups that each process draws from (`/metrics`) is read every few hundredths of a second. Of these, those
that went through the process itself are known at once, and are taken off: the lag of the k-th commit through the
other one is how long after it k of the rest were known. Half-way one process is killed and started again: what it
loads must be whole too. `missed` is what the table has and a process does not know two seconds after the last commit.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from sqlalchemy import make_url

from paced import Client, wire

KEY, SECRET = "benchmark-key", "benchmark-secret"
SERVER = os.environ.get("PACED_BENCH_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")
N_WRITERS = 4
GROUPS_A_REPORT = 8
SCRAPE_S = 0.03
SETTLE_S = 2.0


@dataclass
class Log:
    """When each group was committed through each process, and what a process knew at which time."""

    commits: dict[int, list[float]] = field(default_factory=lambda: {0: [], 1: []})
    seen: dict[int, list[tuple[float, int]]] = field(default_factory=lambda: {0: [], 1: []})
    errors: list[str] = field(default_factory=list)


def run(small: bool) -> dict[str, Any]:
    """The figures are over both processes; the time in which one is being restarted does not count for its lag."""
    seconds = 20 if small else 60
    with tempfile.TemporaryDirectory(prefix="paced-processes-") as folder, _database() as url, ExitStack() as stack:
        services = [stack.enter_context(_Service.running(Path(folder) / str(i), url)) for i in range(2)]
        curriculum = _build(services[0].client, Path(folder), n_problems=2000 if small else 20_000)
        log, is_over = Log(), threading.Event()
        for service in services:
            service.client.draw_batch(curriculum.curriculum_id, 1, include="ids")
        threads = [threading.Thread(target=_write, args=(services, i, log, is_over)) for i in range(N_WRITERS)]
        threads += [threading.Thread(target=_watch, args=(i, s, log, is_over)) for i, s in enumerate(services)]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 2)
        away = services[1].restart(curriculum)
        time.sleep(seconds / 2)
        is_over.set()
        for thread in threads:
            thread.join(60)
        time.sleep(SETTLE_S)
        known = [service.n_groups() for service in services]
        n_stored = _n_stored(url)
    n_answered = sum(map(len, log.commits.values()))
    lags = [_lags(log, i, away, n_stored - n_answered) for i in range(2)]
    both = np.concatenate(lags)
    seen = both[np.isfinite(both)]
    return {
        "settings": {"seconds": seconds, "n_writers": N_WRITERS, "groups_a_report": GROUPS_A_REPORT},
        "rows": [{"process": i, "known": known[i], "lag_p50_s": float(np.median(lags[i]))} for i in range(2)],
        "figures": {
            "missed": sum(abs(n_stored - n) for n in known),
            "never_seen": len(both) - len(seen),  # these are in none of the lags
            "lag_p50_s": round(float(np.quantile(seen, 0.5)), 3),
            "lag_p99_s": round(float(np.quantile(seen, 0.99)), 3),
            "lag_max_s": round(float(seen.max()), 3),
            "observations": n_stored,
            "observations_per_s": round(n_stored / seconds),
            "restart_s": round(away[1] - away[0], 2),
            "errors": len(log.errors),
        },
    }


def _lags(log: Log, process: int, away: tuple[float, float], n_unanswered: int) -> Any:
    """Seconds of each commit through the other process, infinite if never seen; none around the restart.

    `n_unanswered` groups were stored as the second process was killed, whose writers had no answer: they are taken off
    too from then on.
    """
    own, theirs = (np.sort(np.array(log.commits[i])) for i in (process, 1 - process))
    times, counts = (np.array(column) for column in zip(*log.seen[process], strict=True))
    rest = counts - np.searchsorted(own, times, side="right") - n_unanswered * (times >= away[0])
    first = np.searchsorted(np.maximum.accumulate(rest), np.arange(1, len(theirs) + 1))
    lags = np.maximum(np.append(times, np.inf)[first] - theirs, 0.0)
    return lags[(theirs < away[0] - 1.0) | (theirs > away[1])]


class _Service:
    """One `paced serve` process, and a client of it."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self._url = folder, url
        self._process, self.client = self._start()

    @classmethod
    @contextmanager
    def running(cls, folder: Path, url: str) -> Iterator["_Service"]:
        """Stopped at the end."""
        service = cls(folder, url)
        try:
            yield service
        finally:
            service.client.close()
            service._process.terminate()
            service._process.wait(30)

    def _start(self) -> tuple["subprocess.Popen[str]", Client]:
        arguments = ["serve", "--data", str(self._folder), "--database", self._url, "--port", "0", "--json"]
        environment = {**os.environ, "PACED_ADMIN_KEY": KEY, "PACED_SECRET": SECRET, "PACED_LOG_LEVEL": "error"}
        command = [sys.executable, "-m", "paced", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert process.stdout is not None
        return process, Client(json.loads(process.stdout.readline())["url"], KEY, retry_s=1.0)

    def restart(self, curriculum: wire.Curriculum) -> tuple[float, float]:
        """Kill it and start it again; returns when it went away and when it drew a batch again."""
        gone = time.time()
        self._process.kill()
        self._process.wait()
        self._process, self.client = self._start()
        self.client.draw_batch(curriculum.curriculum_id, 1, include="ids")
        return gone, time.time()

    def n_groups(self) -> int:
        """Groups that its draws know of."""
        asked = urllib.request.Request(f"{self.client.url}/metrics", headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(asked, timeout=5) as answer:
            text = answer.read().decode()
        found = re.search(r"^paced_groups_in_memory\{[^}]*\} (\S+)$", text, re.MULTILINE)
        return round(float(found[1])) if found else 0


def _n_stored(url: str) -> int:
    with psycopg.connect(url) as conn:
        row = conn.execute("SELECT count(*) FROM observations").fetchone()
    assert row is not None
    return int(row[0])


def _write(services: Sequence[_Service], i: int, log: Log, is_over: threading.Event) -> None:
    process = i % len(services)
    service = services[process]
    answers = [wire.Rollout(text="42", verdict=wire.Verdict.PASS, n_tokens=1)] * 8
    while not is_over.is_set():
        try:
            lease = service.client.claim_lease(
                wire.LeaseClaim(student="s", worker=str(i), max_problems=GROUPS_A_REPORT, ttl_s=5)
            )
            if not lease.problems or lease.checkpoint is None:
                service.client.register_checkpoint("s", wire.CheckpointCreate(uri=f"/m/{uuid.uuid4().hex}"))
                continue
            index = lease.checkpoint.index
            groups = [
                wire.RolloutGroup(problem_id=item.problem_id, checkpoint_index=index, rollouts=answers)
                for item in lease.problems
            ]
            body = wire.LeaseReport(token=str(lease.token), groups=groups)
            receipt = service.client.report_rollouts(str(lease.lease_id), body)
            log.commits[process] += [time.time()] * receipt.n_accepted
        except Exception as error:
            log.errors.append(repr(error))
            time.sleep(0.2)


def _watch(i: int, service: _Service, log: Log, is_over: threading.Event) -> None:
    until = None
    while until is None or time.time() < until:
        try:
            n_groups = service.n_groups()
        except Exception:
            n_groups = 0
        log.seen[i].append((time.time(), n_groups))
        if until is None and is_over.is_set():
            until = time.time() + SETTLE_S
        time.sleep(SCRAPE_S)


@contextmanager
def _database() -> Iterator[str]:
    name = f"paced_bench_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(SERVER, autocommit=True) as conn:
        conn.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type, unused-ignore]
    try:
        yield make_url(SERVER).set(database=name).render_as_string(hide_password=False)
    finally:
        with psycopg.connect(SERVER, autocommit=True) as conn:
            conn.execute(f'DROP DATABASE "{name}" WITH (FORCE)')  # type: ignore[arg-type, unused-ignore]


def _build(client: Client, folder: Path, n_problems: int) -> wire.Curriculum:
    file = folder / "problems.jsonl"
    rows = ({"prompt": f"Compute {i} + 1.", "answer": str(i + 1), "tags": [f"t{i % 40}"]} for i in range(n_problems))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    client.create_problem_set(wire.ProblemSetCreate(name="p", grader=wire.GraderName.NUMERIC))
    client.import_problems("p", file)
    client.create_student(wire.StudentCreate(name="s"))
    client.register_checkpoint("s", wire.CheckpointCreate(uri="/m/0"))
    profile = client.create_profile(wire.ProfileCreate())
    return client.create_curriculum(
        wire.CurriculumCreate(name="c", student="s", problem_set="p", profile_id=profile.profile_id, holdout_share=0)
    )
