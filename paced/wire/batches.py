"""Stage 6: batches drawn from a curriculum, what a trainer sends back, and why each problem was drawn."""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .base import Id, Index, ProblemId, Prompt, Request, Resource, example
from .curricula import EstimatorConfig, Kernel, Mode, Stage
from .estimates import OBSERVATION, Observation


class BatchState(StrEnum):
    """A batch waits for its trainer until it expires; then its problems return to the pool."""

    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    EXPIRED = "expired"


class DrawRequest(Request):
    """What draws of one batch and of several have in common."""

    size: Annotated[int, Field(ge=1, le=65_536)]
    run_id: Id | None = None
    include: Literal["ids", "problems"] = "problems"


class BatchRequest(DrawRequest):
    """Draw `size` distinct problems; the same Idempotency-Key returns the same batch.

    `replaces` names a batch of this run that expired before it was trained on: the new one takes its step, and so its
    stage, and the schedule loses none.
    """

    model_config = example(size=16, run_id="run_4tYb", include="problems")

    replaces: Id | None = None


MAX_DRAWN = 65_536


class BatchesRequest(DrawRequest):
    """Draw `count` batches, one after the other, each without the problems of those before it."""

    model_config = example(size=16, count=4, run_id="run_4tYb", include="ids")

    count: Annotated[int, Field(ge=1, le=256)]

    @model_validator(mode="after")
    def _check_total(self) -> Self:
        if self.size * self.count > MAX_DRAWN:
            raise ValueError(f"{self.count} batches of {self.size} are more than {MAX_DRAWN} problems; ask for fewer")
        return self


class BatchProblem(Resource):
    """The text of one drawn problem."""

    problem_id: int
    prompt: Prompt
    answer: str
    grader: str
    solution: str | None
    tags: list[str]


class Shortfall(Resource):
    """Why fewer problems came than were asked for: what each of the set's problems was set aside for."""

    n_requested: int
    n_returned: int
    n_problems: int
    n_flagged: int
    n_holdout: int
    n_quarantined: int
    n_in_flight: int
    n_cooling: int
    n_unmeasured: int
    n_filtered: int
    n_zero_weight: int
    n_other_strata: int


_BATCH = {
    "batch_id": "bat_9cVm",
    "curriculum_id": "cur_3hGw",
    "curriculum_version": 1,
    "run_id": "run_4tYb",
    "step": 0,
    "stage": "forward_kl",
    "mode": "sample",
    "state": "open",
    "size": 2,
    "seed": [0, 0],
    "created_at": "2026-11-25T08:00:00Z",
    "expires_at": "2026-11-25T09:00:00Z",
    "problem_id": [41, 7],
    "pass_rate": [0.5, 0.25],
    "weight": [0.22, 0.17],
    "draw_probability": [0.004, 0.003],
    "loss_weight": [0.9, 1.2],
    "shortfall": None,
    "problems": None,
}


class Batch(Resource):
    """One durable draw; the arrays are aligned, in draw order.

    `pass_rate` is the estimate used, `weight` its E[w], `draw_probability` the chance of the first draw,
    `loss_weight` the factor of the problem's loss. `step` counts the run's batches from 0.
    """

    model_config = example(**_BATCH)

    batch_id: str
    curriculum_id: str
    curriculum_version: int
    run_id: str | None
    step: int
    stage: Stage
    mode: Mode
    state: BatchState
    size: int
    seed: list[int]
    created_at: datetime
    expires_at: datetime
    problem_id: list[int]
    pass_rate: list[float]
    weight: list[float]
    draw_probability: list[float | None]
    loss_weight: list[float]
    shortfall: Shortfall | None = None
    problems: list[BatchProblem] | None = None

    def items(self) -> Iterator[tuple[BatchProblem, float]]:
        """Each problem with its loss weight; needs a batch drawn with `include="problems"`."""
        if self.problems is None:
            raise ValueError(f"batch {self.batch_id} carries ids only; ask with include='problems'")
        return zip(self.problems, self.loss_weight, strict=True)


class Batches(Resource):
    """Batches in the order of their draws; fewer than asked for where the schedule or the problems ended."""

    model_config = example(items=[_BATCH])

    items: list[Batch]


class Outcome(Request):
    """A trainer's own graded answers to one problem of the batch: a free observation.

    Binary outcomes only: a shaped reward says nothing about p.
    """

    problem_id: ProblemId
    checkpoint_index: Index
    n_passed: Annotated[int, Field(ge=0, le=65_536)]
    n_failed: Annotated[int, Field(ge=0, le=65_536)]
    n_truncated: Annotated[int, Field(ge=0, le=65_536)] = 0


class BatchAck(Request):
    """The optimiser step on this batch is done."""

    model_config = example(outcomes=[{"problem_id": 41, "checkpoint_index": 1, "n_passed": 5, "n_failed": 3}])

    outcomes: Annotated[list[Outcome], Field(max_length=65_536)] = []


class BatchReceipt(Resource):
    """The batch after its acknowledgement; a repeated one changes nothing."""

    model_config = example(batch_id="bat_9cVm", state="acknowledged", n_outcomes=1, is_replay=False)

    batch_id: str
    state: BatchState
    n_outcomes: int
    is_replay: bool


class ExplainedItem(Resource):
    """Why one problem was drawn, and how likely two other rules would have drawn it.

    `posterior` holds the two numbers of the estimator's belief at the draw, `interval` 90 % of it; `relative_weight`
    is (E[w] / largest w)^gamma, of which the draw's chance is a share. Uniform draws from all that were eligible, the
    hard filter uniformly from those with 0.2 < p < 0.8: `..._probability` is the chance of the first draw,
    `..._inclusion` that a batch of this size holds the problem.
    """

    problem_id: int
    ordinal: int
    pass_rate: float
    interval: tuple[float, float]
    posterior: dict[str, float]
    weight: float
    relative_weight: float
    draw_probability: float | None
    loss_weight: float
    uniform_probability: float
    uniform_inclusion: float
    hard_filter_probability: float
    hard_filter_inclusion: float
    observations: list[Observation]


class BatchExplanation(Resource):
    """The rule that drew a batch and the terms of each item; observations are those known at the draw."""

    model_config = example(
        batch_id="bat_9cVm",
        curriculum_id="cur_3hGw",
        curriculum_version=1,
        estimator={"name": "drift_filter"},
        kernel={"alpha": 1.0, "beta": 1.0},
        gamma=2.0,
        mode="sample",
        n_eligible=300,
        n_hard_filter=125,
        items=[
            {
                "problem_id": 41,
                "ordinal": 40,
                "pass_rate": 0.5,
                "interval": [0.3, 0.7],
                "posterior": {"logit_mean": 0.0, "logit_variance": 0.26},
                "weight": 0.22,
                "relative_weight": 0.77,
                "draw_probability": 0.004,
                "loss_weight": 0.9,
                "uniform_probability": 0.0033,
                "uniform_inclusion": 0.053,
                "hard_filter_probability": 0.008,
                "hard_filter_inclusion": 0.128,
                "observations": [OBSERVATION],
            }
        ],
    )

    batch_id: str
    curriculum_id: str
    curriculum_version: int
    estimator: EstimatorConfig
    kernel: Kernel
    gamma: float
    mode: Mode
    n_eligible: int
    n_hard_filter: int
    items: list[ExplainedItem]
