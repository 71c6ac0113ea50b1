"""The hold-out over a run: at the checkpoint that it began from, and at those that it wrote."""

from dataclasses import dataclass

from app.flow.curricula.store import CurriculumStore
from app.flow.estimates.history import History
from app.flow.students.store import StudentStore
from paced.wire import HoldoutPoint, Run

MAX_CHECKPOINTS = 10_000


@dataclass(frozen=True, slots=True)
class HoldoutStep:
    """The hold-out pass rate after so many steps of a run."""

    step: int
    point: HoldoutPoint


class Holdouts:
    """What several stages know of it, put together."""

    def __init__(self, curricula: CurriculumStore, students: StudentStore, history: History) -> None:
        self._curricula = curricula
        self._students = students
        self._history = history

    async def of_run(self, run: Run, patience_s: float) -> list[HoldoutStep]:
        """By step, as far as it is counted after `patience_s` seconds."""
        curriculum = await self._curricula.get(run.curriculum_id)
        written = await self._students.checkpoints(curriculum["student"], -1, MAX_CHECKPOINTS)
        mine = [made for made in written if made.run_id == run.run_id]
        if not mine:
            return []
        steps = {made.index: made.step for made in mine if made.step is not None}
        begun = mine[0].index - 1 if mine[0].parent_index is None else mine[0].parent_index
        steps.setdefault(begun, 0)
        spreads, _ = await self._history.spreads(curriculum["measurement_id"], patience_s)
        points = [spread.holdout for spread in spreads if spread.holdout is not None]
        found = [HoldoutStep(steps[p.checkpoint_index], p) for p in points if p.checkpoint_index in steps]
        return sorted(found, key=lambda one: one.step)
