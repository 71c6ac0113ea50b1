"""What is compared: the arms of `paced arm`, with the rules that their presets stand for, and variants. Pure.

Shares of a schedule are of the token budget.
"""

from dataclasses import dataclass, replace

from app.flow.curricula.rule import PRESETS, Rule
from paced.wire import Mode, Preset
from worker.distill import arms

Stages = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Arm:
    """A preset's rule of drawing and a schedule; `is_measured` where the rule asks for pass rates at all.

    `is_following`: pass rates are measured again as the student moves.
    """

    rule: Rule
    stages: Stages
    is_measured: bool
    is_following: bool


def _of(arm: arms.Arm) -> Arm:
    stages = tuple(("akl" if arm.divergence == "akl" else stage.value, share) for stage, share in arm.stages)
    return Arm(PRESETS[arm.preset], stages, arm.preset != Preset.UNIFORM, arm.is_following)


PRESET_ARMS = {name: _of(arm) for name, arm in arms.ARMS.items()}
DEFAULT = PRESET_ARMS["default"]
GAMMA_1 = DEFAULT.rule.model_copy(update={"gamma": 1.0})

# The default arm with one thing changed at a time
VARIANTS = {
    "default_gamma_1": replace(DEFAULT, rule=GAMMA_1),
    "default_measured_once": replace(DEFAULT, is_following=False),
    "default_weight_in_loss": replace(DEFAULT, rule=GAMMA_1.model_copy(update={"mode": Mode.REWEIGHT})),
}
ARMS = PRESET_ARMS | VARIANTS
