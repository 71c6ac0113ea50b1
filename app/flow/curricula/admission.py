"""Which problems a rule's filters admit, as things stand. Pure."""

import numpy as np

from app.flow.curricula.rule import Rule
from app.flow.estimates.columns import BoolArray, IntArray
from app.flow.estimates.estimators import make_estimator
from app.flow.estimates.pools import Pool
from paced.wire import Filters

FEW = 64  # problems; a batch of a usual size would fall short


def admits_all(rule: Rule) -> bool:
    """Whether a rule has no filter that could leave a problem out for good."""
    return rule.filters == Filters(cooldown_batches=rule.filters.cooldown_batches)


def is_wanted(pool: Pool, rule: Rule, rows: IntArray) -> BoolArray:
    """Measured often enough, and inside the band: a problem of which nothing is known is inside none."""
    filters = rule.filters
    wanted = np.ones(len(rows), np.bool_)
    if filters.min_groups:
        wanted &= pool.n_groups[rows] >= filters.min_groups
    if filters.band is not None:
        estimator = make_estimator(rule.estimator)
        p = estimator.pass_rate(pool.columns.take(rows))
        low, high = filters.band
        wanted &= (p > low) & (p < high)
    return wanted


def warnings(pool: Pool, rule: Rule, holdout_share: float, admitted: IntArray | None, largest_batch: int) -> list[str]:
    """What a user should know of filters that admit fewer problems than a batch asks for."""
    if admits_all(rule):
        return []
    rows = np.arange(len(pool)) if admitted is None else admitted
    rows = rows[pool.is_trained(holdout_share)[rows]]
    n = int(is_wanted(pool, rule, rows).sum())
    if n >= (largest_batch or FEW):
        return []
    short = f"its batches of up to {largest_batch} will" if largest_batch else "a larger batch will"
    return [
        f"the filters admit {n} of {pool.n_trained(holdout_share)} problems now: {short} fall short; "
        "widen the band, or measure more problems"
    ]
