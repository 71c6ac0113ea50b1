"""What to re-roll next: the hold-out first, then a uniform audit share, then the longest unmeasured."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, func, select

from app.db.tables import estimates
from app.flow.rollouts.groups import holdout_threshold
from app.flow.rollouts.measurements import NEVER, is_due
from paced.wire import Checkpoint

AUDIT_SHARE = 0.25  # of a lease, chosen uniformly: fit for fitting priors, where oldest-first is not


@dataclass(frozen=True, slots=True)
class Target:
    """A measurement's row, the checkpoint to measure it at, and whether problems measured before may be leased."""

    measurement: dict[str, Any]
    checkpoint: Checkpoint
    may_remeasure: bool = True


def choose(
    conn: Connection, target: Target, n: int, now: dt.datetime, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Up to `n` due problem ids, locked until the transaction ends, and which of them are the audit."""
    c = estimates.c
    mine = c.measurement_id == target.measurement["measurement_id"]
    due = mine & is_due(target.checkpoint.index, now)
    threshold = holdout_threshold(target.measurement["holdout_share"])

    def take(condition: ColumnElement[bool], n_wanted: int, *order: Any) -> list[int]:
        query = select(c.problem_id).where(condition).order_by(*order).limit(n_wanted)
        rows = conn.execute(query.with_for_update(skip_locked=True))
        return [row.problem_id for row in rows]

    # in the index's own order: of a hold-out that is measured already, nothing is sorted
    chosen = take(due & (c.holdout_key < threshold), n, c.holdout_key)
    training = due & (c.holdout_key >= threshold)
    if not target.may_remeasure:
        training &= c.checkpoint_index == NEVER
    audit: list[int] = []
    n_audit = int((n - len(chosen)) * AUDIT_SHARE)
    n_rows = (conn.execute(select(func.max(c.ordinal)).where(mine))).scalar()
    if n_audit and n_rows:
        ordinals = rng.integers(0, n_rows + 1, n_audit).tolist()
        audit = take(training & c.ordinal.in_(ordinals), n_audit, c.ordinal)
    chosen += audit
    if len(chosen) < n:
        chosen += take(training & c.problem_id.not_in(audit), n - len(chosen), c.checkpoint_index, c.ordinal)
    return chosen, audit
