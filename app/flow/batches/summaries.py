"""A batch in one line: what was drawn, and what a uniform draw of that moment would have held. Pure."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.flow.batches.body import effective_state, unpacked
from app.flow.estimates.estimators import is_inside
from paced.wire import BatchState, Mode, Stage


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """`inside_share` is of its problems with 0.2 < p < 0.8, `uniform_inside_share` of all that could be drawn."""

    batch_id: str
    curriculum_id: str
    seq: int
    curriculum_version: int
    run_id: str | None
    step: int
    stage: Stage
    mode: Mode
    state: BatchState
    size: int
    mean_pass_rate: float | None
    inside_share: float
    uniform_inside_share: float | None
    n_served: int
    created_at: dt.datetime
    expires_at: dt.datetime
    acknowledged_at: dt.datetime | None


def summary(row: dict[str, Any], now: dt.datetime) -> BatchSummary:
    """From a batch's row."""
    p = unpacked(row, "pass_rates")
    known = p[~np.isnan(p)]
    n_eligible = row["n_eligible"]
    same = (
        "batch_id",
        "curriculum_id",
        "seq",
        "run_id",
        "step",
        "size",
        "n_served",
        "created_at",
        "expires_at",
        "acknowledged_at",
    )
    return BatchSummary(
        **{name: row[name] for name in same},
        curriculum_version=row["version"],
        stage=Stage(row["stage"]),
        mode=Mode(row["mode"]),
        state=effective_state(row, now),
        mean_pass_rate=float(known.mean()) if len(known) else None,
        inside_share=float(is_inside(p).mean()),
        uniform_inside_share=row["n_hard_filter"] / n_eligible if n_eligible else None,
    )
