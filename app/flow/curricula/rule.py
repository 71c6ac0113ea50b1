"""The versioned part of a curriculum, and the presets that it starts from. Pure."""

from pydantic import BaseModel, ConfigDict

from app.errors import Conflict, Invalid
from app.flow.estimates.estimators import HARD_FILTER
from paced.wire import (
    CurriculumUpdate,
    DiscountedBeta,
    DriftFilter,
    EstimatorConfig,
    Filters,
    Kernel,
    Mode,
    PlugInFirst,
    PlugInNewest,
    Preset,
    Selection,
    Stage,
    StagePlan,
    Stratum,
)

FORWARD_THEN_REVERSE = [StagePlan(stage=Stage.FORWARD_KL, steps=100), StagePlan(stage=Stage.REVERSE_KL)]


class Rule(BaseModel):
    """How a curriculum turns posteriors into batches; every field may change on a running curriculum."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimator: EstimatorConfig
    kernel: Kernel = Kernel()
    gamma: float
    mode: Mode
    filters: Filters = Filters()
    strata: list[Stratum] = []
    retest_share: float = 0.0
    selection: Selection = Selection.PROPORTIONAL
    schedule: list[StagePlan] = FORWARD_THEN_REVERSE
    loss_weight_clip: float = 4.0
    batch_ttl_s: float = 3600.0

    def changed(self, update: CurriculumUpdate) -> "Rule":
        """The rule with the fields that an update names; Invalid where they do not go together."""
        fields = {name: getattr(update, name) for name in Rule.model_fields}
        made = self.model_copy(update={name: value for name, value in fields.items() if value is not None})
        if made.selection == Selection.THOMPSON and isinstance(made.estimator, PlugInFirst | PlugInNewest):
            raise Invalid(
                f"Thompson sampling draws pass rates from a posterior, and {made.estimator.name} has none; take "
                "discounted_beta, logit_filter or drift_filter, or selection 'proportional'",
                code="no_posterior",
            )
        return made

    def stage_at(self, step: int) -> Stage:
        """The stage of the run's batch number `step`, from 0; raises Conflict when the schedule is over."""
        first = 0
        for plan in self.schedule:
            if plan.steps is None or step < first + plan.steps:
                return plan.stage
            first += plan.steps
        raise Conflict(
            f"the schedule ended after {first} batches of this run; start a new run or lengthen the schedule",
            code="schedule_complete",
            n_steps=first,
        )


PRESETS: dict[Preset, Rule] = {
    # E[w]^2 undoes the flattening of a posterior mean; the loss weight takes the draw back to w
    Preset.DEFAULT: Rule(estimator=DriftFilter(), gamma=2.0, mode=Mode.SAMPLE),
    # plug-in k/n measured once, uniform draw, the weight in the loss (arXiv 2603.11178)
    Preset.PAPER: Rule(estimator=PlugInFirst(), gamma=1.0, mode=Mode.REWEIGHT),
    # uniform inside a band of the newest k/n, as most trainers filter
    Preset.HARD_FILTER: Rule(
        estimator=PlugInNewest(),
        kernel=Kernel(alpha=0.0, beta=0.0),
        gamma=1.0,
        mode=Mode.SAMPLE,
        filters=Filters(band=HARD_FILTER),
    ),
    Preset.UNIFORM: Rule(estimator=DiscountedBeta(), kernel=Kernel(alpha=0.0, beta=0.0), gamma=1.0, mode=Mode.SAMPLE),
}
