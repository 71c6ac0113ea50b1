"""What is compared: how problems are drawn, and which divergence is minimised when. Pure.

The first arms differ in their draw alone and minimise forward KL throughout; the later ones differ in their schedule
alone and draw by the default preset. Shares of a schedule are of the token budget.
"""

from dataclasses import dataclass

from app.flow.curricula.rule import PRESETS, Rule
from paced.losses import DIVERGENCES
from paced.wire import Preset

Stages = tuple[tuple[str, float], ...]

FORWARD: Stages = (("forward_kl", 1.0),)
REVERSE: Stages = (("reverse_kl", 1.0),)
FORWARD_REVERSE: Stages = (("forward_kl", 0.5), ("reverse_kl", 0.5))
REVERSE_FORWARD: Stages = (("reverse_kl", 0.5), ("forward_kl", 0.5))


@dataclass(frozen=True, slots=True)
class Arm:
    """A preset's rule of drawing and a schedule; `is_measured` where the rule asks for pass rates at all.

    `is_following`: pass rates are measured again as the student moves.
    """

    rule: Rule
    stages: Stages = FORWARD
    is_measured: bool = True
    is_following: bool = True


UNIFORM, HARD_FILTER, PAPER, DEFAULT = (
    PRESETS[name] for name in (Preset.UNIFORM, Preset.HARD_FILTER, Preset.PAPER, Preset.DEFAULT)
)
ARMS = {
    "uniform": Arm(UNIFORM, is_measured=False, is_following=False),
    "hard_filter": Arm(HARD_FILTER),
    "paper": Arm(PAPER, is_following=False),
    "default": Arm(DEFAULT),
    "uniform_forward_reverse": Arm(UNIFORM, FORWARD_REVERSE, is_measured=False, is_following=False),
    "default_forward_reverse": Arm(DEFAULT, FORWARD_REVERSE),
    "default_reverse": Arm(DEFAULT, REVERSE),
    "default_reverse_forward": Arm(DEFAULT, REVERSE_FORWARD),
}
if "akl" in DIVERGENCES:
    ARMS["akl"] = Arm(UNIFORM, (("akl", 1.0),), is_measured=False, is_following=False)
