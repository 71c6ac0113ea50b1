"""A small world for API tests: a problem set, a student with a checkpoint, a profile, a curriculum, rollouts."""

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from paced import Client, wire
from tests.service import Service, TestClock

T = TypeVar("T")


def write_problems(folder: Path, n: int) -> Path:
    path = folder / "sums.jsonl"
    lines = [
        json.dumps({"prompt": f"Compute {i} + {i + 1}.", "answer": str(2 * i + 1), "tags": ["sum"]}) for i in range(n)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def build(client: Client, folder: Path, n: int = 40, suffix: str = "", **curriculum: object) -> wire.Curriculum:
    """Everything that a curriculum needs, with `n` problems; `curriculum` overrides its fields.

    `suffix` makes the names of a second world in the same service.
    """
    problem_set, student = f"sums{suffix}", f"tiny{suffix}"
    client.create_problem_set(wire.ProblemSetCreate(name=problem_set, grader=wire.GraderName.NUMERIC))
    assert client.import_problems(problem_set, write_problems(folder, n)).n_imported == n
    client.create_student(wire.StudentCreate(name=student))
    client.register_checkpoint(student, wire.CheckpointCreate(uri=f"/models/{student}/0"))
    profile = client.create_profile(wire.ProfileCreate(max_tokens=16))
    fields = {
        "name": f"main{suffix}",
        "student": student,
        "problem_set": problem_set,
        "profile_id": profile.profile_id,
    }
    return client.create_curriculum(wire.CurriculumCreate.model_validate({**fields, **curriculum}))


def group(problem_id: int, n_passed: int, n: int = 8, checkpoint: int = 0) -> wire.RolloutGroup:
    verdicts = [wire.Verdict.PASS] * n_passed + [wire.Verdict.FAIL] * (n - n_passed)
    answers = [wire.Rollout(text=f"answer {i}", verdict=verdict, n_tokens=2) for i, verdict in enumerate(verdicts)]
    return wire.RolloutGroup(problem_id=problem_id, checkpoint_index=checkpoint, rollouts=answers)


def measure(
    client: Client, student: str = "tiny", passed: Callable[[int], int] = lambda i: i % 9, size: int = 16
) -> int:
    """Lease and report until nothing is due; `passed` gives k of 8 by problem id. Returns the number of groups."""
    n_groups = 0
    while True:
        lease = client.claim_lease(wire.LeaseClaim(student=student, worker="test", max_problems=size))
        if lease.lease_id is None or lease.token is None:
            return n_groups
        assert lease.checkpoint is not None
        groups = [
            group(item.problem_id, passed(item.problem_id), item.n_rollouts, lease.checkpoint.index)
            for item in lease.problems
        ]
        client.report_rollouts(lease.lease_id, wire.LeaseReport(token=lease.token, groups=groups))
        n_groups += len(groups)


def at_once(n: int, call: Callable[[int], T]) -> list[T]:
    """Call from `n` threads that start together."""
    gate = threading.Barrier(n)

    def run(i: int) -> T:
        gate.wait()
        return call(i)

    with ThreadPoolExecutor(n) as threads:
        return list(threads.map(run, range(n)))


@dataclass(frozen=True)
class World:
    """One curriculum in a service that other tests may share, and short words for what tests do with it."""

    service: Service
    client: Client
    clock: TestClock
    curriculum: wire.Curriculum

    @property
    def measurement(self) -> wire.Measurement:
        return self.client.measurement(self.curriculum.measurement_id)

    def claim(self, n: int = 16, key: str | None = None, **fields: Any) -> wire.Lease:
        body = {"student": self.curriculum.student, "worker": "test", "max_problems": n, **fields}
        return self.client.claim_lease(wire.LeaseClaim.model_validate(body), key)

    def report(self, lease: wire.Lease, groups: Sequence[wire.RolloutGroup]) -> wire.ReportReceipt:
        assert lease.lease_id is not None
        return self.client.report_rollouts(lease.lease_id, wire.LeaseReport(token=token(lease).token, groups=groups))

    def measure(self, passed: Callable[[int], int] = lambda i: i % 9, size: int = 64) -> int:
        return measure(self.client, self.curriculum.student, passed, size)

    def new_checkpoint(self) -> wire.Checkpoint:
        body = wire.CheckpointCreate(uri=f"/models/{self.curriculum.student}/next")
        return self.client.register_checkpoint(self.curriculum.student, body)

    def draw(self, size: int, **options: Any) -> wire.Batch:
        return self.client.draw_batch(self.curriculum.curriculum_id, size, **options)

    def problem_ids(self) -> list[int]:
        return [problem.problem_id for problem in self.client.problems(self.curriculum.problem_set, limit=1000)]

    def estimates(self) -> dict[int, wire.Estimate]:
        found = self.client.estimates(self.curriculum.measurement_id, limit=1000)
        return {estimate.problem_id: estimate for estimate in found}

    def estimate(self, problem_id: int) -> wire.ProblemEstimate:
        return self.client.estimate(self.curriculum.measurement_id, problem_id)


def token(lease: wire.Lease, ttl_s: float = 120.0) -> wire.LeaseToken:
    assert lease.token is not None
    return wire.LeaseToken(token=lease.token, ttl_s=ttl_s)


def leased(lease: wire.Lease) -> list[int]:
    return [item.problem_id for item in lease.problems]


def verdict_group(problem_id: int, verdicts: Sequence[wire.Verdict], checkpoint: int = 0) -> wire.RolloutGroup:
    answers = [wire.Rollout(text="?", verdict=verdict, n_tokens=1) for verdict in verdicts]
    return wire.RolloutGroup(problem_id=problem_id, checkpoint_index=checkpoint, rollouts=answers)


def misjudge(client: Client, student: str, n: int) -> list[int]:
    """Report `n` problems as never solved though their first answers hold the reference; returns their ids."""
    lease = client.claim_lease(wire.LeaseClaim(student=student, worker="test", max_problems=n))
    assert lease.checkpoint is not None
    groups = [
        wire.RolloutGroup(
            problem_id=item.problem_id,
            checkpoint_index=lease.checkpoint.index,
            rollouts=[
                wire.Rollout(text=text, verdict=wire.Verdict.FAIL, n_tokens=4, extracted="units")
                for text in [f"so the answer is {item.answer} units"] + ["no idea"] * (item.n_rollouts - 1)
            ],
        )
        for item in lease.problems
    ]
    client.report_rollouts(str(lease.lease_id), wire.LeaseReport(token=token(lease).token, groups=groups))
    return leased(lease)
