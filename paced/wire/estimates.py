"""Stage 4: what is known of a student's pass rates."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from .base import Page, Resource, example
from .problems import Problem

OBSERVATION: dict[str, Any] = {
    "observation_id": 812,
    "problem_id": 41,
    "checkpoint_index": 1,
    "source": "audit",
    "n_passed": 5,
    "n_counted": 8,
    "verdicts": {"pass": 5, "fail": 3},
    "created_at": "2026-11-25T08:00:00Z",
}


class ObservationSource(StrEnum):
    """Why a problem was measured; only uniformly chosen ones are fit for fitting a prior."""

    HOLDOUT = "holdout"
    OLDEST = "oldest"
    AUDIT = "audit"
    TRAINER = "trainer"


class Observation(Resource):
    """One measured group: `n_passed` of `n_counted`, and how many answers got each other verdict."""

    observation_id: int
    problem_id: int
    checkpoint_index: int
    source: ObservationSource
    n_passed: int
    n_counted: int
    verdicts: dict[str, int]
    created_at: datetime


_SHOWN: dict[str, Any] = {
    "problem_id": 41,
    "ordinal": 40,
    "pass_rate": 0.58,
    "interval": [0.31, 0.83],
    "n_groups": 2,
    "n_passed": 9,
    "n_counted": 16,
    "last_passed": 5,
    "last_counted": 8,
    "checkpoint_index": 1,
    "measured_at": "2026-11-25T08:00:00Z",
    "is_holdout": False,
    "verdicts": {"pass": 9, "fail": 7},
    "quarantine_reason": "3 groups in a row gave no verdict: 8 × infrastructure",
}


class Estimate(Resource):
    """The posterior pass rate of one problem; null where it was never measured.

    `interval` is the central 90 % of the posterior; `n_groups` counts observations.
    """

    model_config = example(**_SHOWN)

    problem_id: int
    ordinal: int
    pass_rate: float | None
    interval: tuple[float, float] | None
    n_groups: int
    n_passed: int
    n_counted: int
    last_passed: int
    last_counted: int
    checkpoint_index: int | None
    measured_at: datetime | None
    is_holdout: bool
    verdicts: dict[str, int]
    quarantine_reason: str | None


class ListedEstimate(Estimate):
    """An estimate in a list: its `weight` (E[w], where the list is a curriculum's) and in how many batches it was.

    `problem` is there when it was asked for.
    """

    model_config = example(**_SHOWN, weight=0.21, n_served=3)

    weight: float | None = None
    n_served: int = 0
    problem: Problem | None = None


class EstimatePage(Page[ListedEstimate]):
    """One page of estimates; `n_matches` of the measurement's problems are on all pages together."""

    model_config = example(items=[{**_SHOWN, "weight": 0.21, "n_served": 3}], next_cursor=None, n_matches=1)

    n_matches: int = 0


class ProblemEstimate(Estimate):
    """An estimate with the observations behind it, newest first."""

    model_config = example(**_SHOWN, observations=[OBSERVATION])

    observations: list[Observation]


class HoldoutPoint(Resource):
    """The hold-out pass rate at one checkpoint, mean over problems with its standard error (clustered by problem)."""

    model_config = example(checkpoint_index=1, n_problems=120, n_rollouts=960, pass_rate=0.36, se=0.03)

    checkpoint_index: int
    n_problems: int
    n_rollouts: int
    pass_rate: float
    se: float | None


class Frontier(Resource):
    """Histogram of the newest group pass rates of training problems, and the share with 0.1 < p < 0.9."""

    model_config = example(
        edges=[0.0, 0.5, 1.0], counts=[200, 100], n_measured=300, n_unmeasured=0, frontier_share=0.4, mean=0.31
    )

    edges: list[float]
    counts: list[int]
    n_measured: int
    n_unmeasured: int
    frontier_share: float | None
    mean: float | None
