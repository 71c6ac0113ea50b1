"""Stage 3: who measures, how fast, what waits, and what is slow."""

from datetime import datetime
from typing import Any

from .base import Resource, example
from .grading import Verdict

_WORKER: dict[str, Any] = {
    "worker": "gpu-3/worker-0",
    "n_live": 1,
    "n_late": 0,
    "n_lost": 0,
    "n_groups_5m": 40,
    "n_answers_5m": 320,
    "n_tokens_5m": 96_000,
    "tokens_per_s": 320.0,
    "n_groups_1h": 480,
    "n_answers_1h": 3840,
    "last_seen_at": "2026-11-25T08:00:00Z",
}


class WorkerActivity(Resource):
    """One worker: its leases (live; late, which go at the next claim; lost within the hour), and what it reported.

    The last 5 minutes are whole minutes and the one that runs; `tokens_per_s` is over their seconds.
    """

    worker: str
    n_live: int
    n_late: int
    n_lost: int
    n_groups_5m: int
    n_answers_5m: int
    n_tokens_5m: int
    tokens_per_s: float
    n_groups_1h: int
    n_answers_1h: int
    last_seen_at: datetime | None


class MinuteActivity(Resource):
    """What all workers reported in one minute."""

    minute: datetime
    n_groups: int
    n_answers: int
    n_tokens: int


class WorkQueue(Resource):
    """What waits for a worker at the student's newest checkpoint, registered at `waiting_since`.

    `is_wanted`: a worker that asks now gets work. `oldest_measured_at` and `oldest_checkpoint_index` are of the problem
    that was measured longest ago among those that wait; null when it never was, or when nothing waits.
    """

    is_wanted: bool
    checkpoint_index: int | None
    waiting_since: datetime | None
    oldest_checkpoint_index: int | None
    oldest_measured_at: datetime | None


class GraderSpeed(Resource):
    """How long one grader took, of the newest answers whose time its worker reported."""

    grader: str
    n_answers: int
    mean_s: float
    max_s: float


class SlowRollout(Resource):
    """An answer that took long to judge."""

    observation_id: int
    position: int
    problem_id: int
    ordinal: int
    grader: str
    verdict: Verdict
    grading_s: float


class Workers(Resource):
    """Everything on the measuring of one measurement, as of `at`.

    `workers` are those seen within a day, the last seen first; `verdicts` and `minutes` are of the last hour;
    `graders` (slowest first) and `slowest` (one answer a group) are of the newest 1,000 groups of the newest checkpoint
    that was measured.
    """

    model_config = example(
        measurement_id="mea_8sKd",
        student="smollm2",
        at="2026-11-25T08:01:00Z",
        n_live=1,
        n_late=0,
        n_lost=0,
        workers=[_WORKER],
        verdicts={"pass": 2100, "fail": 1700, "timeout": 40},
        minutes=[{"minute": "2026-11-25T08:00:00Z", "n_groups": 8, "n_answers": 64, "n_tokens": 19_200}],
        queue={
            "is_wanted": True,
            "checkpoint_index": 1,
            "waiting_since": "2026-11-25T07:59:00Z",
            "oldest_checkpoint_index": 0,
            "oldest_measured_at": "2026-11-25T07:10:00Z",
        },
        graders=[{"grader": "math", "n_answers": 8000, "mean_s": 0.012, "max_s": 2.4}],
        slowest=[
            {
                "observation_id": 812,
                "position": 3,
                "problem_id": 41,
                "ordinal": 40,
                "grader": "math",
                "verdict": "pass",
                "grading_s": 2.4,
            }
        ],
    )

    measurement_id: str
    student: str
    at: datetime
    n_live: int
    n_late: int
    n_lost: int
    workers: list[WorkerActivity]
    verdicts: dict[str, int]
    minutes: list[MinuteActivity]
    queue: WorkQueue
    graders: list[GraderSpeed]
    slowest: list[SlowRollout]
