"""When a stage ends before its steps are done: decided on measured pass rates, at a checkpoint. Pure."""

from collections.abc import Sequence

from paced.wholes import measured_whole
from paced.wire import Checkpoint, Frontier, HoldoutPoint, StagePlan
from worker.distill.metrics import FRONTIER
from worker.distill.stages import place

NEAR = 1e-9  # histogram edges are rounded


def has_plateaued(points: Sequence[HoldoutPoint], n_checkpoints: int) -> bool:
    """Whether none of the last `n_checkpoints` hold-out pass rates beats the best before by its standard error.

    Points of a hold-out that is not wholly measured yet are left out.
    """
    whole = measured_whole(points)
    before, newest = whole[:-n_checkpoints], whole[-n_checkpoints:]
    if not before:
        return False
    best = max(before, key=lambda point: point.pass_rate)
    return all(point.pass_rate <= best.pass_rate + (best.se or 0.0) for point in newest)


def mastered_share(frontier: Frontier) -> float:
    """Of the training problems that the student is not hopeless at (p ≥ 0.1), the share with p ≥ 0.9."""
    low, high = FRONTIER
    bins = list(zip(frontier.edges, frontier.counts, strict=False))  # each with its lower edge
    n_touched = sum(count for edge, count in bins if edge >= low - NEAR)
    return sum(count for edge, count in bins if edge >= high - NEAR) / n_touched if n_touched else 0.0


def of_stage(
    points: Sequence[HoldoutPoint], checkpoints: Sequence[Checkpoint], run_id: str, first: int
) -> list[HoldoutPoint]:
    """The points at a run's own checkpoints from its step `first` on; at 0 that is the one that it started from."""
    own = [made for made in checkpoints if made.run_id == run_id and made.step is not None]
    indices = {made.index for made in own if made.step is not None and made.step >= first}
    if first == 0 and own:
        indices.add(min(own, key=lambda made: made.index).parent_index or 0)
    return [point for point in points if point.checkpoint_index in indices]


def ended(schedule: Sequence[StagePlan], step: int) -> list[StagePlan]:
    """The schedule with the stage of a step, which is not its first, ending before it."""
    plan, first = place(schedule, step)
    here = next(i for i, one in enumerate(schedule) if one is plan)
    shorter = plan.model_copy(update={"steps": step - first})
    return [*schedule[:here], shorter, *schedule[here + 1 :]]
