"""What is compared: the arms of `paced arm`, with the rules that their presets stand for. Pure.

Shares of a schedule are of the token budget.
"""

from dataclasses import dataclass

from app.flow.curricula.rule import PRESETS, Rule
from paced.wire import Preset
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


ARMS = {name: _of(arm) for name, arm in arms.ARMS.items()}
