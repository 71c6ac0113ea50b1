"""Stage 3: measurements, leases on their problems, and the graded answers that come back."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from .base import Count, Id, Index, Label, Name, ProblemId, Prompt, Request, Resource, example
from .grading import Grader, GradingPolicy, Verdict
from .students import CHECKPOINT, PROFILE, Checkpoint, Profile


class LeaseState(StrEnum):
    """A lease ends in one of three ways."""

    ACTIVE = "active"
    DONE = "done"
    RELEASED = "released"
    EXPIRED = "expired"


class MeasurementCreate(Request):
    """Keep pass rates of this student on this problem set under this profile; creating it again returns it.

    `samples_per_measurement` bounds what workers measure anew: one group for that many problems served to training,
    and one pass over the set ahead of it; 0 sets no bound. Problems never measured and the hold-out never wait. Given
    again, it changes.
    """

    model_config = example(student="smollm2", problem_set="arithmetic", profile_id="sp_5f0c8b1d2a3e4f60", n_rollouts=8)

    student: Name
    problem_set: Name
    profile_id: Id
    n_rollouts: Annotated[int, Field(ge=1, le=1024, description="K, answers a problem")] = 8
    samples_per_measurement: Annotated[float, Field(ge=0, le=1e6)] | None = None


class Measurement(Resource):
    """A (student, problem set, profile) whose pass rates are kept, and how far its measuring is.

    `n_at_latest` and `n_holdout_at_latest` count problems measured at the student's newest checkpoint;
    `n_due` those that a worker could lease now; `n_flagged` those that are not ready: never leased, drawn or held out.
    `n_remeasured` counts groups of problems measured before, `n_served` problems in batches: while the first is ahead
    of the second by more than `samples_per_measurement` allows, only new problems and the hold-out are leased.
    """

    model_config = example(
        measurement_id="mea_8sKd",
        student="smollm2",
        problem_set="arithmetic",
        profile_id="sp_5f0c8b1d2a3e4f60",
        n_rollouts=8,
        latest_checkpoint=CHECKPOINT,
        n_problems=420,
        n_measured=420,
        n_at_latest=120,
        n_holdout=120,
        n_holdout_at_latest=120,
        n_leased=32,
        n_quarantined=0,
        n_flagged=0,
        n_due=268,
        n_remeasured=120,
        n_served=960,
        samples_per_measurement=0.0,
        created_at="2026-11-25T08:00:00Z",
    )

    measurement_id: str
    student: str
    problem_set: str
    profile_id: str
    n_rollouts: int
    latest_checkpoint: Checkpoint | None
    n_problems: int
    n_measured: int
    n_at_latest: int
    n_holdout: int
    n_holdout_at_latest: int
    n_leased: int
    n_quarantined: int
    n_flagged: int
    n_due: int
    n_remeasured: int
    n_served: int
    samples_per_measurement: float
    created_at: datetime

    @property
    def n_measurable(self) -> int:
        """Problems that workers can measure now or later: neither flagged nor in quarantine."""
        return self.n_problems - self.n_quarantined - self.n_flagged


class LeaseClaim(Request):
    """Ask for problems to roll out; without `measurement_id`, from any measurement of the student."""

    model_config = example(student="smollm2", worker="gpu-3/worker-0", max_problems=32, ttl_s=120.0)

    student: Name
    measurement_id: Id | None = None
    worker: Label
    max_problems: Annotated[int, Field(ge=1, le=4096)] = 32
    ttl_s: Annotated[float, Field(ge=1, le=86_400)] = 120.0


class LeasedProblem(Resource):
    """One problem to answer `n_rollouts` times."""

    problem_id: int
    prompt: Prompt
    answer: str
    grader: Grader
    policy: GradingPolicy
    n_rollouts: int


class Lease(Resource):
    """Problems held by one worker until `expires_at`; only `token` may report on them.

    With nothing to do, `lease_id` is null, `problems` empty, and `retry_after_s` says when to ask again.
    """

    model_config = example(
        lease_id="lea_77Qx",
        token="1f0c8b1d2a3e4f605f0c8b1d2a3e4f60",
        state="active",
        measurement_id="mea_8sKd",
        checkpoint=CHECKPOINT,
        profile=PROFILE,
        expires_at="2026-11-25T08:02:00Z",
        problems=[
            {
                "problem_id": 41,
                "prompt": "Compute 7 * 8. Reply with the number only.",
                "answer": "56",
                "grader": "numeric",
                "policy": GradingPolicy().model_dump(),
                "n_rollouts": 8,
            }
        ],
        retry_after_s=None,
    )

    lease_id: str | None
    token: str | None
    state: LeaseState | None
    measurement_id: str | None
    checkpoint: Checkpoint | None
    profile: Profile | None
    expires_at: datetime | None
    problems: list[LeasedProblem]
    retry_after_s: float | None = None


class LeaseStatus(Resource):
    """A lease that is not over: who holds which problems, and which groups are still missing."""

    model_config = example(
        lease_id="lea_77Qx",
        worker="gpu-3/worker-0",
        checkpoint_index=1,
        n_problems=32,
        missing_problem_ids=[41],
        created_at="2026-11-25T08:00:00Z",
        expires_at="2026-11-25T08:02:00Z",
        is_late=False,
    )

    lease_id: str
    worker: str
    checkpoint_index: int
    n_problems: int
    missing_problem_ids: list[int]
    created_at: datetime
    expires_at: datetime
    is_late: bool


class LeaseToken(Request):
    """Proves that the caller holds the lease; `ttl_s` is read on renewal only."""

    model_config = example(token="1f0c8b1d2a3e4f605f0c8b1d2a3e4f60", ttl_s=120.0)

    token: Label
    ttl_s: Annotated[float, Field(ge=1, le=86_400)] = 120.0


class Rollout(Request):
    """One answer and its verdict; `extracted` is the part that was judged."""

    text: Annotated[str, StringConstraints(max_length=4_000_000)]
    verdict: Verdict
    n_tokens: Count
    extracted: str | None = None
    grading_s: Annotated[float, Field(ge=0)] | None = None
    detail: Annotated[str, StringConstraints(max_length=10_000)] | None = None


class RolloutGroup(Request):
    """All answers to one leased problem, from one checkpoint."""

    problem_id: ProblemId
    checkpoint_index: Index
    rollouts: Annotated[list[Rollout], Field(min_length=1, max_length=1024)]


class LeaseReport(Request):
    """Finished groups of a lease; a group already taken from this lease is replayed, not counted again."""

    model_config = example(
        token="1f0c8b1d2a3e4f605f0c8b1d2a3e4f60",
        groups=[
            {
                "problem_id": 41,
                "checkpoint_index": 0,
                "rollouts": [
                    {"text": "56", "verdict": "pass", "n_tokens": 3, "extracted": "56", "grading_s": 0.001},
                    {"text": "54", "verdict": "fail", "n_tokens": 3, "extracted": "54", "grading_s": 0.001},
                ],
            }
        ],
    )

    token: Label
    groups: Annotated[list[RolloutGroup], Field(min_length=1, max_length=4096)]


class ReportReceipt(Resource):
    """What the service did with a report; `n_open` problems of the lease are still to be reported."""

    model_config = example(lease_id="lea_77Qx", state="active", n_accepted=1, n_replayed=0, n_open=31)

    lease_id: str
    state: LeaseState
    n_accepted: int
    n_replayed: int
    n_open: int
