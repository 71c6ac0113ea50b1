"""Learning rates by step, with warm-up and decay in each stage."""

from pathlib import Path
from typing import Any

import pytest

from paced.wire import Stage, StagePlan
from worker.distill.config import DistillConfig
from worker.distill.errors import ConfigRefused
from worker.distill.rates import check_rates, learning_rate

CLOSED = [StagePlan(stage=Stage.FORWARD_KL, steps=6), StagePlan(stage=Stage.REVERSE_KL, steps=10)]
OPEN = [CLOSED[0], StagePlan(stage=Stage.REVERSE_KL)]


def make(**fields: Any) -> DistillConfig:
    return DistillConfig(curriculum_id="cur_1", student=Path("model"), learning_rate=1.0, **fields)


def rates(config: DistillConfig, schedule: list[StagePlan], steps: Any) -> list[float]:
    return [learning_rate(config, schedule, step) for step in steps]


def test_warm_up_and_peak_of_each_stage() -> None:
    config = make(reverse_learning_rate=0.5, warmup_steps=4)
    assert rates(config, OPEN, (0, 1, 3, 5)) == [0.25, 0.5, 1.0, 1.0]
    assert rates(config, OPEN, (6, 9, 400)) == [0.125, 0.5, 0.5]
    assert rates(make(), OPEN, (0, 6)) == [1.0, 1.0]


@pytest.mark.parametrize(("shape", "half"), [("linear", 0.5), ("cosine", 0.5)])
def test_decay_begins_at_the_peak_and_ends_with_the_stage(shape: Any, half: float) -> None:
    config = make(lr_schedule=shape, warmup_steps=2)
    assert rates(config, CLOSED, (0, 1, 2, 4, 6, 8, 12)) == pytest.approx([0.5, 1, 1, half, 0.5, 1, half])
    found = rates(config, CLOSED, range(8, 16))
    assert found == sorted(found, reverse=True)
    assert found[-1] > 0
    assert learning_rate(config, CLOSED, 99) == 0


def test_a_floor_and_a_length_of_its_own() -> None:
    config = make(lr_schedule="cosine", lr_steps=8, lr_floor=0.1)
    assert rates(config, OPEN, (6, 10, 14, 10_000)) == pytest.approx([1, 0.55, 0.1, 0.1])


def test_a_decay_towards_no_end_is_refused() -> None:
    with pytest.raises(ConfigRefused, match="reverse_kl, is open: give lr_steps"):
        check_rates(make(lr_schedule="linear"), OPEN)
    check_rates(make(lr_schedule="linear", lr_steps=5), OPEN)
    check_rates(make(lr_schedule="linear"), CLOSED)
    check_rates(make(), OPEN)
