"""The learning rate of a step: in each stage a warm-up, then constant, linear or cosine decay. Pure."""

import math
from collections.abc import Sequence

from paced.wire import Stage, StagePlan
from worker.distill.config import DistillConfig
from worker.distill.errors import ConfigRefused
from worker.distill.stages import place


def learning_rate(config: DistillConfig, schedule: Sequence[StagePlan], step: int) -> float:
    """The learning rate of a step of the run, by its place in its stage."""
    plan, first = place(schedule, step)
    done = step - first
    if done < config.warmup_steps:
        return _peak(config, plan.stage) * (done + 1) / config.warmup_steps
    return _peak(config, plan.stage) * _share(config, done - config.warmup_steps, plan)


def check_rates(config: DistillConfig, schedule: Sequence[StagePlan]) -> None:
    """Refuse a decay towards an end that is not known. Raises ConfigRefused."""
    if config.lr_schedule != "constant" and config.lr_steps is None and schedule[-1].steps is None:
        raise ConfigRefused(
            f"lr_schedule {config.lr_schedule!r} falls until the end of a stage, but the curriculum's last one, "
            f"{schedule[-1].stage}, is open: give lr_steps, or give that stage its steps"
        )


def _peak(config: DistillConfig, stage: Stage) -> float:
    is_reverse = stage == Stage.REVERSE_KL and config.reverse_learning_rate is not None
    peak = config.reverse_learning_rate if is_reverse else config.learning_rate
    assert peak is not None
    return peak


def _share(config: DistillConfig, done: int, plan: StagePlan) -> float:
    """What is left of the peak, `done` steps after the warm-up."""
    n_steps = config.lr_steps or plan.steps
    if config.lr_schedule == "constant" or n_steps is None:
        return 1.0
    passed = min(1.0, done / max(1, n_steps - config.warmup_steps))
    left = 1 - passed if config.lr_schedule == "linear" else (1 + math.cos(math.pi * passed)) / 2
    return config.lr_floor + (1 - config.lr_floor) * left
