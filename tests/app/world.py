"""A small world for API tests: a problem set, a student with a checkpoint, a profile, a curriculum, rollouts."""

import json
from collections.abc import Callable
from pathlib import Path

from paced import Client, wire


def write_problems(folder: Path, n: int) -> Path:
    path = folder / "sums.jsonl"
    lines = [
        json.dumps({"prompt": f"Compute {i} + {i + 1}.", "answer": str(2 * i + 1), "tags": ["sum"]}) for i in range(n)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def build(client: Client, folder: Path, n: int = 40, **curriculum: object) -> wire.Curriculum:
    """Everything that a curriculum needs, with `n` problems; `curriculum` overrides its fields."""
    client.create_problem_set(wire.ProblemSetCreate(name="sums", grader=wire.GraderName.NUMERIC))
    assert client.import_problems("sums", write_problems(folder, n)).n_imported == n
    client.create_student(wire.StudentCreate(name="tiny"))
    client.register_checkpoint("tiny", wire.CheckpointCreate(uri="/models/tiny/0"))
    profile = client.create_profile(wire.ProfileCreate(max_tokens=16))
    fields = {"name": "main", "student": "tiny", "problem_set": "sums", "profile_id": profile.profile_id}
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
