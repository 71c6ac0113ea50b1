"""Which problems of a pool may be drawn now, and in what proportion: evaluated for the rows that are asked about."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from app.flow.curricula.admission import is_wanted
from app.flow.curricula.rule import Rule
from app.flow.curricula.weighting import Totals, peak, power
from app.flow.estimates.columns import BoolArray, Columns, FloatArray, IntArray
from app.flow.estimates.estimators import Estimator, is_inside, is_settled, make_estimator
from app.flow.estimates.pools import Pool
from app.flow.rollouts.groups import holdout_threshold
from paced.wire import Mode

N_CENSUS = 65_536


@dataclass(frozen=True, slots=True)
class Recent:
    """Rows of the curriculum's batches: still open ones, and the last few that cool down. A batch may stand in both."""

    in_flight: Sequence[IntArray] = ()
    cooling: Sequence[IntArray] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """Aligned with `rows`: the estimate (NaN unknown), E[w], and its power relative to the kernel's peak."""

    rows: IntArray
    pass_rate: FloatArray
    weight: FloatArray
    power: FloatArray

    def take(self, places: IntArray | BoolArray | slice) -> "Terms":
        """Some of them."""
        return Terms(self.rows[places], self.pass_rate[places], self.weight[places], self.power[places])

    @classmethod
    def concatenated(cls, parts: "list[Terms]") -> "Terms":
        """One after the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))


class Law:
    """A rule on a pool at one moment; enter it to draw, and `follow` before each draw what others have drawn."""

    def __init__(self, pool: Pool, rule: Rule, holdout_share: float, now: dt.datetime) -> None:
        self.pool = pool
        self.rule = rule
        self.recent = Recent()
        self._estimator: Estimator = make_estimator(rule.estimator)
        self._threshold = holdout_threshold(holdout_share)
        self._followed: dict[int, IntArray] = {}  # by identity
        self.quarantined = pool.quarantined(now)

    def __enter__(self) -> Self:
        """Mark what may not be drawn; a pool has marks for one law at a time."""
        self.set_aside(self.quarantined)
        return self

    def __exit__(self, *_: object) -> None:
        """Take the marks away."""
        self.put_back(self.quarantined)
        self._forget()

    def follow(self, recent: Recent) -> None:
        """Keep the problems of these batches from being drawn, and of no others."""
        now = {id(rows): rows for rows in (*recent.in_flight, *recent.cooling)}
        if not self._followed.keys() <= now.keys():  # a problem of a batch that is over may be set aside otherwise
            self._forget()
            self.set_aside(self.quarantined)
        for key in now.keys() - self._followed.keys():
            rows = now[key]
            self._followed[key] = rows[rows < len(self.pool)]  # a draw beside this one may know a longer set
            self.set_aside(self._followed[key])
        self.recent = recent  # which keeps the arrays alive, and so their identities

    def _forget(self) -> None:
        for rows in self._followed.values():
            self.put_back(rows)
        self._followed.clear()

    def set_aside(self, rows: IntArray) -> None:
        """Keep rows from being drawn under this law."""
        self.pool.marks[rows] = True

    def put_back(self, rows: IntArray) -> None:
        """The opposite."""
        self.pool.marks[rows] = False

    def is_trained(self, rows: IntArray) -> BoolArray:
        """Ready and not held out."""
        return np.asarray(self.pool.ready_keys[rows] >= self._threshold)

    def is_wanted(self, rows: IntArray) -> BoolArray:
        """Inside the filters that follow the estimates."""
        return is_wanted(self.pool, self.rule, rows)

    def _columns(self, rows: IntArray) -> Columns:
        return self.pool.columns.take(rows)

    def pass_rates(self, rows: IntArray) -> FloatArray:
        """Point estimate of p, NaN where nothing is known."""
        return self._estimator.pass_rate(self._columns(rows))

    def is_known(self, rows: IntArray) -> BoolArray:
        """The estimator has an opinion."""
        return self._estimator.is_known(self._columns(rows))

    def is_aside(self, rows: IntArray) -> BoolArray:
        """In an open or recent batch, or in quarantine."""
        return np.asarray(self.pool.marks[rows])

    def is_open(self, rows: IntArray) -> BoolArray:
        """May be drawn, if there is weight."""
        is_open = self.is_trained(rows) & ~self.is_aside(rows)
        filters = self.rule.filters
        if filters.min_groups or filters.band is not None:
            is_open[is_open] = self.is_wanted(rows[is_open])
        return is_open

    def terms(self, rows: IntArray) -> Terms:
        """Estimate and weight of rows; no weight where nothing is known."""
        columns = self._columns(rows)
        p, w = self._estimator.weigh(columns, self.rule.kernel)
        is_known = self._estimator.is_known(columns)
        powered = np.where(is_known, power(self.rule, w, peak(self.rule.kernel)), 0.0)
        return Terms(rows, p, w, powered)

    def powered(self, terms: Terms) -> Terms:
        """Terms of a rule with the same estimator, kernel and mode, under the power of this one."""
        if self.rule.mode == Mode.REWEIGHT:
            return terms
        return replace(terms, power=power(self.rule, terms.weight, peak(self.rule.kernel)))

    def posteriors(self, rows: IntArray) -> FloatArray:
        """The estimator's two numbers of each row; (rows, 2)."""
        return np.column_stack(self._estimator.posterior(self._columns(rows)))

    def sampled_weight(self, rows: IntArray, rng: np.random.Generator) -> FloatArray:
        """W of a pass rate drawn from each row's posterior (Thompson)."""
        return self._estimator.sampled_weight(self._columns(rows), self.rule.kernel, rng)


class Tally:
    """Running totals of a large set of candidates, estimated from rows that were proposed uniformly.

    Each draw adds what it looked at; older rows fade, so that the totals follow the student. About `N_CENSUS` rows
    count: the standard error of a total is half a per cent.
    """

    def __init__(self) -> None:
        self.n_seen = 0.0
        self._sums = np.zeros(5)

    def add(self, n_proposed: int, terms: Terms) -> None:
        """Count the terms of those among the proposed that are open."""
        keep = min(1.0, max(N_CENSUS - n_proposed, 0) / self.n_seen) if self.n_seen else 0.0
        p, n = terms.pass_rate, (terms.power > 0.0).sum()
        settled, inside = is_settled(p).sum(), is_inside(p).sum()
        new = np.array([terms.weight.sum(), terms.power.sum(), n, settled, inside], np.float64)
        self._sums = keep * self._sums + new
        self.n_seen = keep * self.n_seen + n_proposed

    def totals(self, n_candidates: int) -> tuple[Totals, int]:
        """Totals over all candidates, and how many of them the hard filter would draw from."""
        w, powered, n, n_settled, n_inside = (self._sums * (n_candidates / self.n_seen)).tolist()
        return Totals(w, powered, n, n_settled), round(n_inside)
