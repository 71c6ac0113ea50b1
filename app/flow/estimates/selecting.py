"""Which problems of a pool a query selects, and in which order: numpy over the arrays in memory. Pure."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from app.flow.estimates.columns import BoolArray, FloatArray, IntArray
from app.flow.estimates.estimators import Beta, Estimator, PlugIn
from app.flow.estimates.pools import Pool
from app.flow.estimates.terms import Compared, Query, Sort, Term, Words
from app.flow.estimates.totals import COUNTED, Totals
from app.flow.rollouts.groups import holdout_threshold
from paced.wire import Kernel, Verdict

SHOWN = Beta(0.5, 0.5)  # the posterior shown with estimates, whatever prior or estimator a curriculum takes
NEWEST = PlugIn(is_first=False)
AT_ONCE = 262_144  # rows
IN_SQL = ("text", "tag", "source", "flag")  # word fields that the database answers
STATES_IN_SQL = ("flagged", "excluded")
VERDICTS = {Verdict.PASS: "passed", Verdict.FAIL: "failed"}  # others are counted under their own names
COMPARISONS = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "=": np.equal}


@dataclass(frozen=True, slots=True)
class Weighing:
    """What gives a problem its weight: a curriculum's estimator and kernel."""

    curriculum_id: str
    estimator: Estimator
    kernel: Kernel

    def weights(self, pool: Pool, rows: IntArray) -> FloatArray:
        """E[w] of some rows; 0 where the estimator knows nothing."""
        columns = pool.columns.take(rows)
        # in double precision and rounded, so that a weight is the same bit for bit whatever rows are weighed beside it:
        # the next page begins after the last one of this
        w = self.estimator.expected_weight(columns, self.kernel).round(9)
        return np.where(self.estimator.is_known(columns), w, 0.0)


@dataclass(frozen=True, slots=True)
class Readings:
    """All that a query may ask of a pool's rows. `found` has the rows of each word term that the database answered."""

    pool: Pool
    holdout_share: float
    now: dt.datetime
    found: Mapping[tuple[str, str], BoolArray]
    totals: Totals | None = None
    served: IntArray | None = None
    weighing: Weighing | None = None

    def number(self, name: str, rows: IntArray) -> FloatArray:
        """A numeric field of some rows; NaN where there is none."""
        columns = self.pool.columns
        if name == "p":
            taken = columns.take(rows)
            return np.where(taken.first_counted > 0, SHOWN.pass_rate(taken), np.nan)
        if name == "newest":
            return NEWEST.pass_rate(columns.take(rows))
        if name == "weight" and self.weighing is not None:
            return self.weighing.weights(self.pool, rows)
        if name == "groups":
            return self.pool.n_groups[rows].astype(np.float64)
        if name == "served" and self.served is not None:
            return self.served[rows].astype(np.float64)
        if name in COUNTED and self.totals is not None:
            return self.totals.number(name, rows)
        assert name == "ordinal", name
        return rows.astype(np.float64)

    def has_word(self, name: str, value: str, rows: IntArray) -> BoolArray:
        """Whether each row has this word."""
        if (name, value) in self.found:
            return self.found[name, value][rows]
        if name == "verdict":
            return self.number(VERDICTS.get(Verdict(value), value), rows) > 0
        keys = self.pool.ready_keys[rows]
        if value == "ready":
            return keys >= 0
        if value == "measured":
            return self.pool.columns.records["first_counted"][rows] > 0
        if value == "quarantined":
            return self.pool.quarantined_until[rows] > self.now.timestamp()
        threshold = holdout_threshold(self.holdout_share)
        return (keys >= 0) & (keys < threshold) if value == "holdout" else keys >= threshold

    def holds(self, term: Term, rows: IntArray) -> BoolArray:
        """Whether a term holds for each row."""
        holds: BoolArray
        if isinstance(term, Words):
            holds = np.logical_or.reduce([self.has_word(term.name, value, rows) for value in term.values])
        elif isinstance(term, Compared):
            holds = COMPARISONS[term.operator](self.number(term.name, rows), term.number)
        else:
            values = self.number(term.name, rows)
            holds = (values >= term.low) & (values <= term.high)
        return ~holds if term.is_negated else holds


@dataclass(frozen=True, slots=True)
class Selected:
    """Rows that a query selects, by ordinal, and what they are sorted by, smallest first."""

    rows: IntArray
    keys: FloatArray

    def page(self, after: tuple[float, int] | None, limit: int) -> tuple[IntArray, FloatArray]:
        """Up to `limit` rows in order, and their keys, after the place where a page before ended."""
        rows, keys = self.rows, self.keys
        if after is not None:
            is_later = (keys > after[0]) | ((keys == after[0]) & (rows > after[1]))
            rows, keys = rows[is_later], keys[is_later]
        if len(rows) > limit:
            edge = np.partition(keys, limit - 1)[limit - 1]
            below, ties = np.flatnonzero(keys < edge), np.flatnonzero(keys == edge)
            places = np.concatenate([below, ties[: limit - len(below)]])
            rows, keys = rows[places], keys[places]
        order = np.lexsort((rows, keys))
        return rows[order], keys[order]


def select(query: Query, readings: Readings) -> Selected:
    """The rows that all terms admit. Cheap terms go first, so that few rows are weighed."""
    terms = sorted(query.terms, key=lambda term: term.name == "weight")
    rows, keys = [np.zeros(0, np.int64)], [np.zeros(0)]
    for start in range(0, len(readings.pool), AT_ONCE):
        held = np.arange(start, min(start + AT_ONCE, len(readings.pool)))
        for term in terms:
            held = held[readings.holds(term, held)]
        rows.append(held)
        keys.append(sort_keys(query.sort, readings, held))
    return Selected(np.concatenate(rows), np.concatenate(keys))


def sort_keys(sort: Sort, readings: Readings, rows: IntArray) -> FloatArray:
    """What rows are sorted by, smallest first; infinite where there is no number, which comes last."""
    values = readings.number(sort.name, rows)
    return np.where(np.isnan(values), np.inf, -values if sort.is_descending else values)


def words_in_sql(query: Query) -> set[tuple[str, str]]:
    """The words of a query that the database has to answer."""
    return {
        (term.name, value)
        for term in query.terms
        if isinstance(term, Words)
        for value in term.values
        if term.name in IN_SQL or value in STATES_IN_SQL
    }


def needs_totals(query: Query) -> bool:
    """Whether a query asks for counts by verdict."""
    return not query.fields.isdisjoint({*COUNTED, "verdict"})
