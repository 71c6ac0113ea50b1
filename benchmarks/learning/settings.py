"""The sizes of an experiment."""

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.learning.mixes import HARD, Mix
from benchmarks.learning.models import Recipe

TEACHER = Recipe(width=96, n_layers=3, n_steps=900, lengths=(1.0,) * 8 + (0.1, 0.0))
STUDENT = Recipe(width=64, n_layers=3, n_steps=500, lengths=(6.0,) * 4 + (1.0,) * 4 + (0.0, 0.0), seed=1)


@dataclass(frozen=True, slots=True)
class Settings:
    """Of one experiment; every arm and seed of it has the same.

    `n_pool`: problems of the pool, `n_held_out` of each third of the hold-out. `budget`: optimiser tokens.
    `n_checkpoints`: after how many equal parts of the budget arms that follow the student measure `remeasured_share`
    of the pool again, with `n_answers` a problem, as at the start.
    """

    mix: Mix = HARD
    teacher: Recipe = TEACHER
    student: Recipe = STUDENT
    n_pool: int = 900
    n_held_out: int = 200
    n_candidates: int = 12_000
    budget: int = 120_000
    batch_size: int = 32
    learning_rate: float = 5e-4
    n_checkpoints: int = 8
    remeasured_share: float = 0.25
    n_answers: int = 8

    def as_dict(self) -> dict[str, Any]:
        """For reports and keys."""
        return asdict(self)
