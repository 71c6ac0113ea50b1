"""Which problems make a pool: a third mastered by the student, a third in between, a third hopeless. Pure."""

from dataclasses import dataclass

import numpy as np

from app.flow.estimates.columns import FloatArray, IntArray
from app.flow.estimates.estimators import FRONTIER

THIRDS = ("mastered", "between", "hopeless")


@dataclass(frozen=True, slots=True)
class Mix:
    """Bounds of the teacher's pass rate on the hopeless third; elsewhere it is right at least half the time."""

    name: str
    teacher_low: float
    teacher_high: float


HARD = Mix("hard", 0.0, 0.5)  # hopeless for the student, and the teacher is mostly wrong
EASY = Mix("easy", 0.8, 1.0)  # hopeless for the student, but the teacher can do it
MIXES = {mix.name: mix for mix in (HARD, EASY)}
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


def choose(rows: list[IntArray], n_each: int, rng: np.random.Generator) -> list[IntArray]:
    """`n_each` rows of every third. Raises ValueError where a third has fewer."""
    for name, third in zip(THIRDS, rows, strict=True):
        if len(third) < n_each:
            raise ValueError(
                f"{len(third)} candidates are {name}, {n_each} are needed: make more, or other student and teacher"
            )
    return [rng.choice(third, n_each, replace=False) for third in rows]
