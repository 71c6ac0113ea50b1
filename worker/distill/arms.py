"""Arms of a comparison: how problems are drawn, and which divergence is minimised when. Pure.

Names and meanings are those of the learning laboratory. The first arms differ in their draw alone and minimise forward
KL throughout; the later ones differ in their schedule alone.
"""

from dataclasses import dataclass
from typing import Literal

from paced.wire import Preset, Stage, StagePlan
from worker.distill.errors import ConfigRefused

N_CHECKPOINTS = 8  # that an arm which follows the student registers

Stages = tuple[tuple[Stage, float], ...]

FORWARD: Stages = ((Stage.FORWARD_KL, 1.0),)
REVERSE: Stages = ((Stage.REVERSE_KL, 1.0),)
FORWARD_REVERSE: Stages = ((Stage.FORWARD_KL, 0.5), (Stage.REVERSE_KL, 0.5))
REVERSE_FORWARD: Stages = ((Stage.REVERSE_KL, 0.5), (Stage.FORWARD_KL, 0.5))


@dataclass(frozen=True, slots=True)
class Arm:
    """A preset's way of drawing and a schedule by shares of the steps.

    `is_following`: pass rates are measured again as the student moves, so checkpoints are registered on the way.
    """

    preset: Preset
    stages: Stages = FORWARD
    divergence: Literal["kl", "akl"] = "kl"
    is_following: bool = True

    def schedule(self, n_steps: int) -> list[StagePlan]:
        """The stages in whole steps. Raises ConfigRefused where there is not a step for each."""
        if n_steps < len(self.stages):
            raise ConfigRefused(f"this arm has {len(self.stages)} stages: give it at least as many --steps")
        ends = [round(n_steps * sum(share for _, share in self.stages[: i + 1])) for i in range(len(self.stages))]
        starts = [0, *ends[:-1]]
        stages = zip(self.stages, starts, ends, strict=True)
        return [StagePlan(stage=stage, steps=end - start) for (stage, _), start, end in stages]

    def checkpoint_every(self, n_steps: int) -> int:
        """Steps between checkpoints; 0 registers them at the ends of stages alone."""
        return max(1, n_steps // N_CHECKPOINTS) if self.is_following else 0


ARMS = {
    "uniform": Arm(Preset.UNIFORM, is_following=False),
    "hard_filter": Arm(Preset.HARD_FILTER),
    "akl": Arm(Preset.UNIFORM, divergence="akl", is_following=False),
    "paper": Arm(Preset.PAPER, is_following=False),
    "default": Arm(Preset.DEFAULT),
    "uniform_forward_reverse": Arm(Preset.UNIFORM, FORWARD_REVERSE, is_following=False),
    "uniform_reverse": Arm(Preset.UNIFORM, REVERSE, is_following=False),
    "default_forward_reverse": Arm(Preset.DEFAULT, FORWARD_REVERSE),
    "default_reverse": Arm(Preset.DEFAULT, REVERSE),
    "default_reverse_forward": Arm(Preset.DEFAULT, REVERSE_FORWARD),
}
ALIASES = {
    "forward_only": "default",
    "reverse_only": "default_reverse",
    "forward_then_reverse": "default_forward_reverse",
    "reverse_then_forward": "default_reverse_forward",
}


def find_arm(name: str) -> tuple[str, Arm]:
    """An arm and its own name, by that or by another. Raises ConfigRefused."""
    own = ALIASES.get(name, name)
    if own not in ARMS:
        raise ConfigRefused(f"there is no arm {name!r}: choose one of {', '.join([*ARMS, *ALIASES])}")
    return own, ARMS[own]
