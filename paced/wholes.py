"""Which hold-out points are of the whole hold-out. Pure."""

from collections.abc import Sequence

from paced.wire import HoldoutPoint

WHOLE = 0.95  # of its problems, since some of them may be in quarantine, or have no answer that counts, by then


def measured_whole(points: Sequence[HoldoutPoint]) -> list[HoldoutPoint]:
    """Those of one hold-out; a checkpoint that a newer one overtook has a part of its problems, and is left out."""
    n_whole = WHOLE * max((point.n_problems for point in points), default=0)
    return [point for point in points if point.n_problems >= n_whole]
