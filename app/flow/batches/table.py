"""Weights of a large pool, kept up with it row by row, and a draw that costs what it returns, not what the pool holds.

Rejection: propose rows uniformly, accept with probability (E[w] / peak of w)^γ, keep the first distinct ones. That is
the law of successive sampling, as the full pass draws it. The bound is the kernel's own peak, so that the same state
and seed give the same batch, whatever the table lived through. Sums that a probability needs are kept, not computed.
"""

import datetime as dt
from collections import OrderedDict

import numpy as np

from app.flow.batches.samplers import generator
from app.flow.curricula.rule import Rule
from app.flow.estimates.columns import BoolArray, IntArray
from app.flow.estimates.estimators import Drift, make_estimator
from app.flow.estimates.pools import Pool
from app.flow.rollouts.groups import holdout_threshold
from paced.wire import Kernel, Mode

LARGE = 50_000  # below this many problems a full pass is as fast
MIN_ROOM = 20  # problems that may come for each one asked for, or the full pass is faster
MIN_ACCEPTANCE = 0.02
N_TABLES = 8
HARD_FILTER = (0.2, 0.8)
ROUNDING = 1e-12  # relative: what sums that grow and shrink may leave of nothing


def peak(kernel: Kernel) -> float:
    """The largest w(p): α^α β^β / (α+β)^(α+β)."""
    a, b = kernel.alpha, kernel.beta
    return float(a**a * b**b / (a + b) ** (a + b)) if a + b else 1.0


class WeightTable:
    """E[w], its power and the estimate of every problem of one pool under one rule, with their sums.

    `follow` takes up what changed in the pool. Rows that are not ready, held out or unknown have power 0.
    """

    def __init__(self, pool: Pool, rule: Rule, holdout_share: float) -> None:
        self._pool = pool
        self._rule = rule
        self._estimator = make_estimator(rule.estimator)
        self._peak = peak(rule.kernel)
        self.is_candidate: BoolArray = pool.is_trained(holdout_share)
        self.n_candidates = int(self.is_candidate.sum())
        self._seen = pool.n_moves
        self._build()

    def follow(self) -> None:
        """Take up the rows that moved since the last call."""
        rows = self._pool.moved_since(self._seen, with_abilities=isinstance(self._estimator, Drift))
        self._seen = self._pool.n_moves
        if rows is None or self._n_updated + len(rows) > len(self._pool):
            self._build()
        elif len(rows):
            self._update(rows)

    def draw(
        self, in_flight: IntArray, size: int, seed: int, seq: int, now: dt.datetime
    ) -> "tuple[IntArray, Sums] | None":
        """Rows in draw order and the sums over all that might have come; None where a full pass is better."""
        self.follow()
        pool = self._pool
        aside = np.concatenate([in_flight[in_flight < len(pool)], pool.quarantined(now)])
        aside = np.unique(aside[self.power[aside] > 0.0])
        left = Sums.of(self, aside)
        acceptance = left.power / len(pool)
        if left.n < MIN_ROOM * size or acceptance < MIN_ACCEPTANCE or left.w <= 0.0:
            return None
        return self._propose(aside, size, acceptance, generator(seed, seq)), left

    def _propose(self, aside: IntArray, size: int, acceptance: float, rng: np.random.Generator) -> IntArray:
        found = np.empty(0, np.int64)
        while len(found) < size:
            n = int(1.2 * (size - len(found)) / acceptance) + 32
            rows = rng.integers(0, len(self.power), n)
            rows = rows[rng.random(n) < self.power[rows]]
            rows = np.concatenate([found, rows[~np.isin(rows, aside)]])
            found = rows[np.sort(np.unique(rows, return_index=True)[1])]
        return found[:size]

    def _build(self) -> None:
        n = len(self._pool)
        self.p, self.w, self.power = np.empty(n), np.zeros(n), np.zeros(n)
        self.is_inside = np.zeros(n, np.bool_)
        self._set(slice(None))
        self.sum_w, self.sum_power = float(self.w.sum()), float(self.power.sum())
        self.n_open, self.n_inside = int((self.power > 0.0).sum()), int(self.is_inside.sum())
        self._n_updated = 0

    def _update(self, rows: IntArray) -> None:
        self._account(rows, -1)
        self._set(rows)
        self._account(rows, 1)
        self._n_updated += len(rows)

    def _account(self, rows: IntArray, sign: int) -> None:
        """Take rows out of the sums, or in."""
        self.sum_w += sign * float(self.w[rows].sum())
        self.sum_power += sign * float(self.power[rows].sum())
        self.n_open += sign * int((self.power[rows] > 0.0).sum())
        self.n_inside += sign * int(self.is_inside[rows].sum())

    def _set(self, rows: IntArray | slice) -> None:
        columns = self._pool.columns if isinstance(rows, slice) else self._pool.columns.take(rows)
        is_open = self.is_candidate[rows] & self._estimator.is_known(columns)
        p, w = self._estimator.pass_rate(columns), self._estimator.expected_weight(columns, self._rule.kernel)
        relative = np.minimum(w / self._peak, 1.0) ** self._rule.gamma
        power = np.where(w > 0.0, relative, 0.0) if self._rule.mode == Mode.SAMPLE else np.ones(len(w))
        self.p[rows] = p
        self.w[rows] = np.where(is_open, w, 0.0)
        self.power[rows] = np.where(is_open, power, 0.0)
        self.is_inside[rows] = (self.power[rows] > 0.0) & (p > HARD_FILTER[0]) & (p < HARD_FILTER[1])


class Sums:
    """Over the rows that a draw may take: how many, inside the hard filter, their weight and their power."""

    def __init__(self, n: int, n_inside: int, w: float, power: float) -> None:
        self.n, self.n_inside, self.w, self.power = n, n_inside, w, power

    @classmethod
    def of(cls, table: WeightTable, aside: IntArray) -> "Sums":
        """All of a table but the rows set aside, which are distinct and have power."""
        w = table.sum_w - float(table.w[aside].sum())
        return cls(
            table.n_open - len(aside),
            table.n_inside - int(table.is_inside[aside].sum()),
            w if w > ROUNDING * table.sum_w else 0.0,
            table.sum_power - float(table.power[aside].sum()),
        )


class Tables:
    """The newest few tables, by what they are made from; a table dies with its pool."""

    def __init__(self) -> None:
        self._tables: OrderedDict[tuple[int, int, str], tuple[Pool, WeightTable]] = OrderedDict()

    def of(self, measurement_id: int, pool: Pool, rule: Rule, holdout_share: float) -> WeightTable:
        """The table of a measurement's pool under a rule; made on first use."""
        used = rule.model_dump_json(include={"estimator", "kernel", "gamma", "mode"})
        key = (measurement_id, holdout_threshold(holdout_share), used)
        known = self._tables.get(key)
        if known is None or known[0] is not pool:
            known = (pool, WeightTable(pool, rule, holdout_share))
        self._tables[key] = known
        self._tables.move_to_end(key)
        while len(self._tables) > N_TABLES:
            self._tables.popitem(last=False)
        return known[1]
