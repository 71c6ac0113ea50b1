"""One draw: which problems may come, which do, with what weights, and why fewer came than were asked for. Pure."""

import datetime as dt
from dataclasses import dataclass

import numpy as np

from app.flow.batches.samplers import ExponentialKeys, Sampler, generator
from app.flow.batches.table import HARD_FILTER, Sums, WeightTable
from app.flow.curricula.rule import Rule
from app.flow.curricula.weighting import Weighting, weighting
from app.flow.estimates.columns import BoolArray, FloatArray, IntArray
from app.flow.estimates.pools import Pool
from paced.wire import Mode, Shortfall

SAMPLER: Sampler = ExponentialKeys()


@dataclass(frozen=True, slots=True)
class Draw:
    """Aligned arrays in draw order, and the shortfall if fewer came than were asked for."""

    ordinals: IntArray
    problem_ids: IntArray
    pass_rates: FloatArray
    weights: FloatArray
    draw_probabilities: FloatArray
    loss_weights: FloatArray
    n_eligible: int
    n_hard_filter: int
    watermark: int
    shortfall: Shortfall | None


def draw(
    pool: Pool,
    rule: Rule,
    holdout_share: float,
    in_flight: IntArray,
    size: int,
    seed: int,
    seq: int,
    now: dt.datetime,
    table: WeightTable | None = None,
) -> Draw:
    """Draw up to `size` ready problems that are neither held out, nor in quarantine, nor in an open batch.

    `table` keeps the weights of a large pool; without one, or where it does not pay, every problem is looked at.
    """
    quick = table.draw(in_flight, size, seed, seq, now) if table is not None else None
    if table is not None and quick is not None:
        return _from_table(pool, rule, table, *quick)
    is_trained = pool.is_trained(holdout_share)
    is_quarantined = pool.is_quarantined(now)
    is_in_flight = np.zeros(len(pool), np.bool_)
    is_in_flight[in_flight[in_flight < len(pool)]] = True  # a draw beside this one may know a longer set
    made = weighting(rule, pool.columns, is_trained & ~(is_quarantined | is_in_flight))
    rows = SAMPLER.draw(made.draw_probability, size, generator(seed, seq))
    is_eligible = made.draw_probability > 0.0
    short = None
    if len(rows) < size:
        asides = _Asides(pool.is_ready, is_trained, is_quarantined, is_in_flight)
        short = _shortfall(size, len(rows), made, asides)
    p = made.pass_rate
    return Draw(
        ordinals=rows,
        problem_ids=pool.problem_ids[rows],
        pass_rates=p[rows],
        weights=made.weight[rows],
        draw_probabilities=made.draw_probability[rows],
        loss_weights=made.loss_weight[rows],
        n_eligible=int(is_eligible.sum()),
        n_hard_filter=int((is_eligible & (p > HARD_FILTER[0]) & (p < HARD_FILTER[1])).sum()),
        watermark=pool.watermark,
        shortfall=short,
    )


def _from_table(pool: Pool, rule: Rule, table: WeightTable, rows: IntArray, left: Sums) -> Draw:
    weights = table.w[rows]
    chances = table.power[rows] / left.power
    factors = weights / left.w / chances if rule.mode == Mode.SAMPLE else weights / (left.w / left.n)
    return Draw(
        ordinals=rows,
        problem_ids=pool.problem_ids[rows],
        pass_rates=table.p[rows],
        weights=weights,
        draw_probabilities=chances,
        loss_weights=np.minimum(factors, rule.loss_weight_clip),
        n_eligible=left.n,
        n_hard_filter=left.n_inside,
        watermark=pool.watermark,
        shortfall=None,
    )


@dataclass(frozen=True, slots=True)
class _Asides:
    is_ready: BoolArray
    is_trained: BoolArray
    is_quarantined: BoolArray
    is_in_flight: BoolArray


def _shortfall(size: int, n_returned: int, made: Weighting, asides: _Asides) -> Shortfall:
    """Count each problem under the first reason that sets it aside."""
    is_free = asides.is_trained & ~asides.is_quarantined
    is_idle = is_free & ~asides.is_in_flight
    return Shortfall(
        n_requested=size,
        n_returned=n_returned,
        n_problems=len(made.weight),
        n_flagged=int((~asides.is_ready).sum()),
        n_holdout=int((asides.is_ready & ~asides.is_trained).sum()),
        n_quarantined=int((asides.is_trained & asides.is_quarantined).sum()),
        n_in_flight=int((is_free & asides.is_in_flight).sum()),
        n_unmeasured=int((is_idle & ~made.is_known).sum()),
        n_zero_weight=int((is_idle & made.is_known & (made.draw_probability <= 0.0)).sum()),
    )
