"""The hold-out at checkpoints, from the log."""

import math
from collections import defaultdict

from sqlalchemy import ColumnElement, Connection, Integer, func, literal_column, select

from app.db.tables import estimates, observations
from app.flow.rollouts.measurements import is_held_out, measurement_row
from paced.wire import HoldoutPoint

NOTHING = literal_column("0", Integer)


def of_workers(measurement_id: int, checkpoint: int | None = None) -> ColumnElement[bool]:
    """Observations that workers made, of one checkpoint or of all: no trainer's own answers."""
    o = observations.c
    mine = o.measurement_id == measurement_id
    if checkpoint is not None:
        mine &= o.checkpoint_index == checkpoint
    # no IS NULL: SQLite would take the index of batches for that of checkpoints
    return mine & (func.coalesce(o.batch_id, "") == "")


def holdout_points(conn: Connection, measurement_id: int, checkpoint: int | None = None) -> list[HoldoutPoint]:
    """Mean pass rate over held-out problems at one checkpoint or at each, with its standard error over problems."""
    o, e = observations.c, estimates.c
    is_held = is_held_out(measurement_row(conn, measurement_id)["holdout_share"])
    problem_id = o.problem_id + NOTHING  # nor the index of problems
    each = (
        select(
            o.checkpoint_index.label("checkpoint"),
            problem_id.label("problem_id"),
            func.sum(o.n_passed).label("k"),
            func.sum(o.n_counted).label("n"),
        )
        .where(of_workers(measurement_id, checkpoint), o.n_counted > 0)
        .group_by(o.checkpoint_index, problem_id)
        .subquery()
    )
    query = (
        select(each.c.checkpoint, each.c.k, each.c.n, func.count())
        .join(estimates, (e.measurement_id == measurement_id) & (e.problem_id == each.c.problem_id))
        .where(is_held)
        .group_by(each.c.checkpoint, each.c.k, each.c.n)
    )
    found: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for index, n_passed, n_counted, count in conn.execute(query):
        found[index].append((int(n_passed), int(n_counted), count))
    return [_point(index, groups) for index, groups in sorted(found.items())]


def _point(checkpoint: int, groups: list[tuple[int, int, int]]) -> HoldoutPoint:
    """Of (passed, counted, how many problems so)."""
    n = sum(count for *_, count in groups)
    mean = math.fsum(count * k / m for k, m, count in groups) / n
    square = math.fsum(count * (k / m - mean) ** 2 for k, m, count in groups)
    return HoldoutPoint(
        checkpoint_index=checkpoint,
        n_problems=n,
        n_rollouts=sum(m * count for _, m, count in groups),
        pass_rate=mean,
        se=math.sqrt(square / (n - 1) / n) if n > 1 else None,
    )
