"""Which problems make a pool: some that the student has mastered, some in between, some hopeless. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.flow.estimates.columns import FloatArray, IntArray
from app.flow.estimates.estimators import FRONTIER

THIRDS = ("mastered", "between", "hopeless")


@dataclass(frozen=True, slots=True)
class Mix:
    """Bounds of the teacher's pass rate on the hopeless; elsewhere it is right at least half the time.

    `between`: the share of the pool that is neither mastered nor hopeless, which the others halve among them. The
    hold-out is of thirds always.
    """

    name: str
    teacher_low: float
    teacher_high: float
    between: float = 1 / 3

    def sizes(self, n: int) -> tuple[int, int, int]:
        """How many of a pool of n problems are mastered, between, hopeless."""
        n_between = round(n * self.between)
        n_mastered = (n - n_between) // 2
        return n_mastered, n_between, n - n_between - n_mastered


HARD = Mix("hard", 0.0, 0.5)  # hopeless for the student, and the teacher is mostly wrong
EASY = Mix("easy", 0.8, 1.0)  # hopeless for the student, but the teacher can do it
SCARCE = Mix("scarce", 0.0, 0.5, between=0.1)  # as `hard`, and few problems are between
TEACHER_LOW = 0.5


def thirds(student: FloatArray, teacher: FloatArray, mix: Mix) -> list[IntArray]:
    """Rows of candidates that fit each of `THIRDS`, by the pass rates of student and teacher at the start."""
    low, high = FRONTIER
    can_teach = teacher >= TEACHER_LOW
    fits = (mix.teacher_low <= teacher) & (teacher <= mix.teacher_high)
    return [
        np.flatnonzero((student >= high) & can_teach),
        np.flatnonzero((student > low) & (student < high) & can_teach),
        np.flatnonzero((student <= low) & fits),
    ]


def choose(rows: list[IntArray], sizes: Sequence[int], rng: np.random.Generator) -> list[IntArray]:
    """So many rows of each third. Raises ValueError where a third has fewer."""
    for name, third, n in zip(THIRDS, rows, sizes, strict=True):
        if len(third) < n:
            raise ValueError(
                f"{len(third)} candidates are {name}, {n} are needed: make more, or other student and teacher"
            )
    return [rng.choice(third, n, replace=False) for third, n in zip(rows, sizes, strict=True)]
