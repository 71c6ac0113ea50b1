"""Pools and laws made in memory, for tests of draws."""

import datetime as dt
from collections.abc import Sequence

import numpy as np

from app.flow.batches.drawing import REST, Draw, Memory, Subsets, draw
from app.flow.batches.law import Law, Recent
from app.flow.curricula.rule import Rule
from app.flow.estimates.columns import Columns
from app.flow.estimates.pools import Pool

NOW = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)


def columns_of(ks: Sequence[int | None]) -> Columns:
    """One group of eight each, k of them right; None was never measured. The belief follows k."""
    columns = Columns.zeros(len(ks))
    for place, k in enumerate(ks):
        if k is not None:
            columns.last_passed[place], columns.last_counted[place] = k, 8
            columns.first_passed[place], columns.first_counted[place] = k, 8
            columns.discounted_passed[place], columns.discounted_failed[place] = k, 8 - k
            columns.logit_mean[place], columns.logit_variance[place] = 0.7 * (k - 4), 0.5 + 0.1 * abs(k - 4)
    return columns


def pool_of(columns: Columns, **given: object) -> Pool:
    """A pool of these columns; by default every problem is ready, trained, free, and measured once."""
    n = len(columns)
    arrays = {
        "problem_ids": np.arange(100, 100 + n),
        "holdout_keys": np.full(n, 65_535),
        "is_ready": np.ones(n, np.bool_),
        "n_groups": np.ones(n, np.int64),
        "quarantined_until": np.zeros(n),
        "skills": [""],
        "watermark": 7,
        "state_version": 0,
    }
    return Pool(columns=columns, **{**arrays, **given})  # type: ignore[arg-type]


def draw_from(
    pool: Pool,
    rule: Rule,
    size: int,
    *,
    share: float = 0.0,
    in_flight: Sequence[int] = (),
    cooling: Sequence[int] = (),
    subsets: Subsets | None = None,
    seed: int = 0,
    seq: int = 0,
    memory: Memory | None = None,
) -> Draw:
    """One draw, as the service makes it."""
    with Law(pool, rule, share, NOW) as law:
        law.follow(Recent([np.array(in_flight, np.int64)], [np.array(cooling, np.int64)]))
        return draw(law, subsets or {REST: None}, size, seed, seq, memory or Memory())
