"""Accounting of tokens: every arm trains on the same number of them. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from worker.distill.data import Example


@dataclass(slots=True)
class Spent:
    """Tokens of one run, by what they were spent on.

    `optimiser`: prompts and answers of the sequences that an update read; a sequence of weight 0 has no gradient, is
    not read, and costs nothing. `measuring`: written by the student to estimate pass rates. `on_policy`: written by
    the student to be trained on. `teacher`: written by the teacher, each text once.
    """

    optimiser: int = 0
    measuring: int = 0
    on_policy: int = 0
    teacher: int = 0

    def as_dict(self) -> dict[str, int]:
        """For reports."""
        return asdict(self)


def size(example: Example) -> int:
    """What an update on a sequence costs."""
    return len(example.student_prompt) + len(example.answer)


def affordable(examples: Iterable[Example], budget: int) -> list[Example]:
    """Those of positive weight, in the order drawn, until one would go over the budget."""
    taken: list[Example] = []
    for example in examples:
        if example.weight <= 0.0:
            continue
        budget -= size(example)
        if budget < 0:
            break
        taken.append(example)
    return taken


def stage_at(stages: Sequence[tuple[str, float]], share: float) -> str:
    """The divergence in force when a share of the budget is spent; `stages` name each with its share of the budget."""
    end = 0.0
    for divergence, length in stages:
        end += length
        if share < end - 1e-9:
            return divergence
    return stages[-1][0]
