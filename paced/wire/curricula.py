"""Stage 5: curricula, which turn posteriors into weights."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from .base import Id, Label, Name, Request, Resource, example


class Stage(StrEnum):
    """What the trainer minimises: forward KL = KL(teacher‖student), reverse KL = KL(student‖teacher)."""

    FORWARD_KL = "forward_kl"
    REVERSE_KL = "reverse_kl"


class Mode(StrEnum):
    """Where the weight acts: in the draw (`sample`) or in the loss (`reweight`), never in both."""

    SAMPLE = "sample"
    REWEIGHT = "reweight"


class Preset(StrEnum):
    """Starting points; every field can be overridden."""

    DEFAULT = "default"
    PAPER = "paper"
    HARD_FILTER = "hard_filter"
    UNIFORM = "uniform"


class Selection(StrEnum):
    """How a batch is picked: a chance in proportion to the weight, or the largest weights of sampled pass rates."""

    PROPORTIONAL = "proportional"
    THOMPSON = "thompson"


class Kernel(Request):
    """The weight w(p) = p^alpha (1-p)^beta; zero for both exponents is uniform."""

    alpha: Annotated[float, Field(ge=0, le=64)] = 1.0
    beta: Annotated[float, Field(ge=0, le=64)] = 1.0


class PlugInFirst(Request):
    """p = k/n of the first measured group, for good (the paper's estimator)."""

    name: Literal["plug_in_first"] = "plug_in_first"


class PlugInNewest(Request):
    """p = k/n of the newest group."""

    name: Literal["plug_in_newest"] = "plug_in_newest"


class DiscountedBeta(Request):
    """Beta posterior that forgets: at each group a <- λa + (1-λ)·prior_a + k with λ = 1/2, likewise b.

    Without a prior, one is fitted for each first tag to the groups chosen uniformly (hold-out and audit); until there
    are 24 of them it is Beta(0.5, 0.5). Of a prior of which one number is given, the other is 0.5.
    """

    name: Literal["discounted_beta"] = "discounted_beta"
    prior_a: Annotated[float, Field(gt=0, le=1000)] | None = None
    prior_b: Annotated[float, Field(gt=0, le=1000)] | None = None


class DriftFilter(Request):
    """Gaussian belief of logit p whose mean moves with the ability seen on all problems of its first tag."""

    name: Literal["drift_filter"] = "drift_filter"


class LogitFilter(Request):
    """Gaussian belief of logit p of each problem alone; it widens with every checkpoint until measured again."""

    name: Literal["logit_filter"] = "logit_filter"


EstimatorConfig = Annotated[
    PlugInFirst | PlugInNewest | DiscountedBeta | LogitFilter | DriftFilter, Field(discriminator="name")
]


class Filters(Request):
    """What a problem must be to be drawn at all; fields left out admit every problem.

    `tags` admits problems with any of them; `band` those whose estimated pass rate lies strictly between its ends;
    `min_groups` those measured that often; `cooldown_batches` keeps a served problem out of that many next batches.
    """

    model_config = example(tags=["algebra"], band=[0.1, 0.9], min_groups=1, cooldown_batches=4)

    tags: Annotated[list[Label], Field(min_length=1, max_length=256)] | None = None
    sources: Annotated[list[Label], Field(min_length=1, max_length=256)] | None = None
    band: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] | None = None
    min_groups: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    cooldown_batches: Annotated[int, Field(ge=0, le=10_000)] = 0

    @model_validator(mode="after")
    def _band_is_ordered(self) -> "Filters":
        if self.band is not None and self.band[0] >= self.band[1]:
            raise PydanticCustomError("empty_band", "the band's lower end must lie below its upper end")
        return self


class Stratum(Request):
    """A share of every batch for the problems with a tag."""

    tag: Label
    share: Annotated[float, Field(gt=0, le=1)]


class StagePlan(Request):
    """One stage of the schedule; `steps` counts batches, null runs on for ever (last stage only)."""

    stage: Stage
    steps: Annotated[int, Field(ge=1, lt=2**31)] | None = None


def _check_strata(strata: list[Stratum] | None) -> None:
    tags = [stratum.tag for stratum in strata or ()]
    if len(set(tags)) < len(tags):
        raise PydanticCustomError("stratum_twice", "a tag stands twice in the strata; add its shares up")
    if sum(stratum.share for stratum in strata or ()) > 1 + 1e-9:
        raise PydanticCustomError("shares_over_one", "the shares of the strata add up to more than 1")


def _check_schedule(schedule: list[StagePlan] | None) -> None:
    if schedule and any(plan.steps is None for plan in schedule[:-1]):
        raise PydanticCustomError("open_stage_inside", "only the last stage of a schedule may leave `steps` open")


class CurriculumUpdate(Request):
    """Fields to change on a running curriculum; the next draw follows, under a new version."""

    model_config = example(kernel={"alpha": 1.0, "beta": 2.0}, gamma=2.0)

    estimator: EstimatorConfig | None = None
    kernel: Kernel | None = None
    gamma: Annotated[float, Field(ge=0, le=64)] | None = None
    mode: Mode | None = None
    filters: Filters | None = None
    strata: Annotated[list[Stratum], Field(max_length=256)] | None = None
    retest_share: Annotated[float, Field(ge=0, le=0.5)] | None = None
    selection: Selection | None = None
    schedule: Annotated[list[StagePlan], Field(min_length=1, max_length=64)] | None = None
    loss_weight_clip: Annotated[float, Field(ge=1, le=1e6)] | None = None
    batch_ttl_s: Annotated[float, Field(ge=1, le=7 * 86_400)] | None = None

    @model_validator(mode="after")
    def _is_sound(self) -> "CurriculumUpdate":
        _check_schedule(self.schedule)
        _check_strata(self.strata)
        return self


class CurriculumCreate(CurriculumUpdate):
    """What a training job subscribes to; fields left out come from `preset`."""

    model_config = example(
        name="arithmetic-forward-reverse",
        student="smollm2",
        problem_set="arithmetic",
        profile_id="sp_5f0c8b1d2a3e4f60",
        preset="default",
        schedule=[{"stage": "forward_kl", "steps": 60}, {"stage": "reverse_kl", "steps": 40}],
        holdout_share=0.25,
    )

    name: Name
    student: Name
    problem_set: Name
    profile_id: Id
    n_rollouts: Annotated[int, Field(ge=1, le=1024)] = 8
    samples_per_measurement: Annotated[float, Field(ge=0, le=1e6, description="See POST /v1/measurements")] | None = (
        None
    )
    preset: Preset = Preset.DEFAULT
    holdout_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class Curriculum(Resource):
    """A curriculum with every field resolved.

    The hold-out belongs to the measurement, which its curricula share: `holdout_share` is the largest asked for.
    `warnings` is what a change should make you look at, such as filters that admit fewer problems than a batch.
    """

    model_config = example(
        curriculum_id="cur_3hGw",
        version=1,
        name="arithmetic-forward-reverse",
        measurement_id="mea_8sKd",
        student="smollm2",
        problem_set="arithmetic",
        profile_id="sp_5f0c8b1d2a3e4f60",
        n_rollouts=8,
        preset="default",
        estimator={"name": "drift_filter"},
        kernel={"alpha": 1.0, "beta": 1.0},
        gamma=2.0,
        mode="sample",
        filters={},
        strata=[],
        retest_share=0.0,
        selection="proportional",
        schedule=[{"stage": "forward_kl", "steps": 60}, {"stage": "reverse_kl", "steps": 40}],
        holdout_share=0.25,
        loss_weight_clip=4.0,
        batch_ttl_s=3600.0,
        seed=0,
        created_at="2026-11-25T08:00:00Z",
        warnings=[],
    )

    curriculum_id: str
    version: int
    name: str
    measurement_id: str
    student: str
    problem_set: str
    profile_id: str
    n_rollouts: int
    preset: Preset
    estimator: EstimatorConfig
    kernel: Kernel
    gamma: float
    mode: Mode
    filters: Filters
    strata: list[Stratum]
    retest_share: float
    selection: Selection
    schedule: list[StagePlan]
    holdout_share: float
    loss_weight_clip: float
    batch_ttl_s: float
    seed: int
    created_at: datetime
    warnings: list[str] = []
