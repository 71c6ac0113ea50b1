"""kill -9 of service, worker and trainer at random points: nothing acknowledged is lost, nothing is counted twice."""

import json
import random
import sqlite3
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from demo.arithmetic import generate
from paced import Client, wire
from tests.flow.processes import Part, Parts, free_port, wait_for
from tests.flow.proxy import Recording, recording_proxy
from tests.worker.distill.tiny import tiny_folder

N_KILLS = 10
N_STEPS = {"forward_kl": 14, "reverse_kl": 10}
KEY = "kill-test-key"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    port = free_port()
    with recording_proxy(port) as recording, Parts(tmp_path) as parts:
        service = parts.part(
            "serve", "serve", "--data", str(tmp_path / "data"), "--port", str(port), PACED_ADMIN_KEY=KEY
        )
        with Client(f"http://127.0.0.1:{port}", KEY, retry_s=60) as client:
            curriculum = _build(client, tmp_path)
            access = {"PACED_URL": recording.url, "PACED_KEY": KEY}
            worker = parts.part("rollout", *_rollout_command(), **access)
            trainer = parts.part("distill", *_distill_command(tmp_path, curriculum), **access)
            _kill_at_random([service, worker, trainer], trainer)
            assert trainer.wait(240) == 0, trainer.tail()
            _wait_until_measured(client, curriculum)
            _wait_until_asking(recording)  # a signal while Python still starts would end it with -15
            assert worker.stop() == 0, worker.tail()
            run = next(client.runs(curriculum.curriculum_id))
            batches = list(client.batches(curriculum.curriculum_id))
            metrics = list(client.metrics(run.run_id))
        service.stop()
    assert min(part.n_starts for part in (service, worker, trainer)) > 1
    _check_batches(run, batches, metrics, recording)
    _check_counts(tmp_path / "data" / "paced.sqlite3", recording)


def _build(client: Client, folder: Path) -> wire.Curriculum:
    problems = folder / "problems.jsonl"
    problems.write_text("\n".join(json.dumps(row) for row in generate(12)) + "\n")
    client.create_problem_set(wire.ProblemSetCreate(name="arithmetic", grader=wire.GraderName.NUMERIC))
    client.import_problems("arithmetic", problems)
    client.create_student(wire.StudentCreate(name="tiny"))
    model = tiny_folder(folder / "checkpoint-0")
    client.register_checkpoint("tiny", wire.CheckpointCreate(uri=str(model)), key="base")
    profile = client.create_profile(wire.ProfileCreate(max_tokens=8))
    schedule = [wire.StagePlan(stage=wire.Stage(name), steps=steps) for name, steps in N_STEPS.items()]
    body = wire.CurriculumCreate(
        name="kill", student="tiny", problem_set="arithmetic", profile_id=profile.profile_id, schedule=schedule
    )
    return client.create_curriculum(body)


def _rollout_command() -> list[str]:
    return [
        *("rollout", "tiny"),
        *("--engine", "scripted"),
        *("--delay-s", "0.1"),
        *("--max-problems", "8"),
        *("--n-groups", "4"),
        *("--ttl-s", "3"),
        *("--graders", "1"),
    ]


def _distill_command(folder: Path, curriculum: wire.Curriculum) -> list[str]:
    return [
        "distill",
        *("--curriculum", curriculum.curriculum_id),
        *("--student", str(folder / "checkpoint-0")),
        *("--out", str(folder / "run")),
        *("--batch-size", "4"),
        *("--save-every", "3"),
        *("--engine", "transformers"),
        *("--set", "teacher_attempts=1"),
        *("--set", "drop_wrong_references=false"),
        *("--set", "dtype=float32"),
    ]


def _kill_at_random(parts: list[Part], trainer: Part) -> None:
    """Ten kills at moments that no part can foresee; the trainer's first comes first, before it can be done."""
    seed = time.time_ns()
    print(f"kills by seed {seed}")
    rng = random.Random(seed)
    others = [part for part in parts for _ in range(3) if part is not trainer] + [trainer] * 2 + [rng.choice(parts)]
    rng.shuffle(others)
    order = [trainer, *others]
    assert len(order) == N_KILLS
    for victim in order:
        # a trainer needs seconds to come up again: killed sooner it would never train between kills
        time.sleep(rng.uniform(6.0, 12.0) if victim is trainer else rng.uniform(0.3, 3.0))
        if victim is trainer and victim.code == 0:
            continue  # it was done already
        victim.kill()
        time.sleep(rng.uniform(0.0, 1.0))
        victim.start()


def _wait_until_measured(client: Client, curriculum: wire.Curriculum) -> None:
    def is_measured() -> bool:
        m = client.measurement(curriculum.measurement_id)
        return m.n_at_latest == m.n_problems and m.n_leased == 0

    wait_for(is_measured, "the last checkpoint to be measured", 120)


def _wait_until_asking(recording: Recording) -> None:
    """Until the worker claims anew: it is up and its signal handlers are set."""
    n_seen = len(recording.of("POST", "/rollout-leases"))
    wait_for(lambda: len(recording.of("POST", "/rollout-leases")) > n_seen, "the worker to ask for work")


def _check_batches(
    run: wire.Run, batches: list[wire.Batch], metrics: list[wire.MetricPoint], recording: Recording
) -> None:
    n_steps = sum(N_STEPS.values())
    assert run.state == wire.RunState.FINISHED
    assert [batch.step for batch in batches] == list(range(n_steps))
    assert {batch.state for batch in batches} == {wire.BatchState.ACKNOWLEDGED}
    assert Counter(batch.stage for batch in batches) == N_STEPS
    assert [point.step for point in metrics] == list(range(n_steps))
    answers = defaultdict(set)
    for exchange in recording.of("POST", "/batches"):
        if exchange.status == 201:
            answers[exchange.key].add(exchange.answer["batch_id"])
    assert {key: len(ids) for key, ids in answers.items()} == dict.fromkeys(answers, 1)
    assert {i for ids in answers.values() for i in ids} == {batch.batch_id for batch in batches}


def _check_counts(database: Path, recording: Recording) -> None:
    """Counts in the database are those of the acknowledged reports, and each group stands there once."""
    sent: dict[tuple[str, int], Counter[str]] = {}
    acknowledged = set()
    for exchange in recording.of("POST", "/report"):
        lease_id = exchange.path.split("/")[-2]
        for group in exchange.body["groups"]:
            key = (lease_id, group["problem_id"])
            sent[key] = Counter(rollout["verdict"] for rollout in group["rollouts"])
            if exchange.status == 200:
                acknowledged.add(key)
    with sqlite3.connect(database) as conn:
        conn.row_factory = sqlite3.Row
        stored = {(row["lease_id"], row["problem_id"]): row for row in conn.execute("SELECT * FROM observations")}
        n_observations = conn.execute("SELECT count(*) FROM observations").fetchone()[0]
        estimates = conn.execute("SELECT * FROM estimates").fetchall()
    conn.close()
    assert len(stored) == n_observations
    assert acknowledged <= stored.keys() <= sent.keys()
    totals: dict[int, Counter[str]] = defaultdict(Counter)
    for key, row in stored.items():
        assert _verdicts(row) == sent[key]
        totals[key[1]] += Counter(groups=1, passed=row["n_passed"], counted=row["n_counted"])
    for row in estimates:
        total = totals[row["problem_id"]]
        found = (row["n_groups"], row["n_passed"], row["n_counted"])
        assert found == (total["groups"], total["passed"], total["counted"])
        assert row["lease_id"] is None


def _verdicts(row: Any) -> Counter[str]:
    names = {"pass": "n_passed", "fail": "n_failed", "truncated": "n_truncated"}
    return +Counter({verdict: row[column] for verdict, column in names.items()})
