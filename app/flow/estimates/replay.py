"""How well estimators predict the log: each group's answers are forecast from what was known before it was counted.

The score is the log predictive probability of k passes in n answers, a proper score: an estimator that is sure and
wrong pays. It says which estimator to believe for a student and a problem set, whatever a simulation says.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import betaln, gammaln
from sqlalchemy import Connection

from app.db.engine import Database
from app.db.transaction import reads, rows_as_dicts
from app.flow.estimates.columns import Columns, FloatArray
from app.flow.estimates.filters import Beliefs, binomial_mixture
from app.flow.estimates.rebuild import Replay, rows_of
from app.flow.rollouts.groups import Group
from app.flow.rollouts.measurements import measurement_row
from app.ids import numbered

Forecast = Callable[[Columns, FloatArray, FloatArray], FloatArray]
N_BINS = 10


@dataclass(frozen=True, slots=True)
class Score:
    """How one estimator did: mean log loss a group (nats) with its standard error, and mean squared error of p.

    `calibration` has for each tenth of the predicted pass rate (mean predicted, mean observed, groups).
    """

    estimator: str
    n_groups: int
    log_loss: float
    log_loss_se: float
    squared_error: float
    calibration: list[tuple[float, float, int]]


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores over the groups of problems that were measured before."""

    measurement_id: str
    n_reports: int
    scores: list[Score]


class ReplayStore:
    """Reads the log; changes nothing."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @reads
    def score(self, conn: Connection, measurement_id: int) -> Scores:
        """Every estimator's score on a measurement; NotFound when there is none."""
        measurement_row(conn, measurement_id)
        log = Replay(conn, measurement_id, rows_as_dicts(conn.execute(rows_of(measurement_id))))
        found: dict[str, list[_Forecasts]] = defaultdict(list)
        n_reports = 0
        for groups in log.reports():
            n_reports += 1
            for name, forecast in _forecasts(log, groups).items():
                found[name].append(forecast)
        scores = [_score(name, forecasts) for name, forecasts in found.items()]
        return Scores(numbered("mea", measurement_id), n_reports, scores)


@dataclass(frozen=True, slots=True)
class _Forecasts:
    log_probability: FloatArray
    expected: FloatArray
    observed: FloatArray


def beta_binomial(a: Any, b: Any, k: FloatArray, n: FloatArray) -> FloatArray:
    """Log probability of k passes in n answers when p is Beta(a, b)."""
    log_p: FloatArray = _log_choose(n, k) + betaln(a + k, b + n - k) - betaln(a, b)
    return log_p


def _log_choose(n: FloatArray, k: FloatArray) -> FloatArray:
    found: FloatArray = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return found


def _newest(columns: Columns, k: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    a, b = 0.5 + columns.last_passed, 0.5 + columns.last_counted - columns.last_passed
    return beta_binomial(a, b, k, n), a / (a + b)


def _discounted(columns: Columns, k: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    a, b = 0.5 + columns.discounted_passed, 0.5 + columns.discounted_failed
    return beta_binomial(a, b, k, n), a / (a + b)


def _drift(columns: Columns, k: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    mean, variance = Beliefs.of(columns).at(columns.now_index, columns.ability)
    log_p, p = binomial_mixture(mean, variance, k, n)
    return log_p + _log_choose(n, k), p


FORECASTS = {"plug_in_newest": _newest, "discounted_beta": _discounted, "drift_filter": _drift}


def _forecasts(log: Replay, groups: list[Group]) -> dict[str, _Forecasts]:
    """Forecasts of a report's groups that are counted, for problems that were counted before."""
    groups = [group for group in groups if group.n_counted and log.rows[group.problem_id]["first_counted"]]
    if not groups:
        return {}
    before = [log.rows[group.problem_id] for group in groups]
    columns = Columns.of_rows(before)
    columns.levels = np.array([log.skills[row["skill"]]["level"] for row in before])
    columns.skill = np.arange(len(before))
    columns.now_index = np.array([group.checkpoint_index for group in groups])
    k = np.array([group.n_passed for group in groups], np.float64)
    n = np.array([group.n_counted for group in groups], np.float64)
    made = {name: forecast(columns, k, n) for name, forecast in FORECASTS.items()}
    return {name: _Forecasts(log_p, p, k / n) for name, (log_p, p) in made.items()}


def _score(name: str, found: list[_Forecasts]) -> Score:
    log_p, p, observed = (
        np.concatenate([getattr(one, field) for one in found]) for field in ("log_probability", "expected", "observed")
    )
    return Score(
        estimator=name,
        n_groups=len(p),
        log_loss=float(-log_p.mean()),
        log_loss_se=float(log_p.std(ddof=1) / len(p) ** 0.5) if len(p) > 1 else 0.0,
        squared_error=float(((p - observed) ** 2).mean()),
        calibration=_calibration(p, observed),
    )


def _calibration(p: FloatArray, observed: FloatArray) -> list[tuple[float, float, int]]:
    bins = np.minimum((p * N_BINS).astype(int), N_BINS - 1)
    rows: list[Any] = [(p[bins == i], observed[bins == i]) for i in range(N_BINS)]
    return [(float(said.mean()), float(was.mean()), len(said)) for said, was in rows if len(said)]
