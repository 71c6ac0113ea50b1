"""How well estimators predict the log: each group's answers are forecast from what was known before it was counted.

The score is the log predictive probability of k passes in n answers, a proper score: an estimator that is sure and
wrong pays. It says which estimator to believe for a student and a problem set, whatever a simulation says. What a draw
by each of them would have been worth is scored beside it (policies.py).
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
from app.errors import Conflict
from app.flow.estimates.columns import UNFITTED, Columns, FloatArray, IntArray, fitted_prior
from app.flow.estimates.filters import Beliefs, LoneBeliefs, binomial_mixture
from app.flow.estimates.policies import PolicyScore, Wave, WaveLog, columns_at, score_policies
from app.flow.estimates.rebuild import Replay, rows_of
from app.flow.rollouts.groups import Group
from app.flow.rollouts.measurements import measurement_row
from app.flow.students.lines import line_of
from app.ids import numbered

Forecast = Callable[[Columns, FloatArray, FloatArray], tuple[FloatArray, FloatArray]]
N_BINS = 10


@dataclass(frozen=True, slots=True)
class CheckpointLoss:
    """Mean log loss of the groups that one checkpoint answered, with its standard error (None of one group)."""

    checkpoint_index: int
    n_groups: int
    log_loss: float
    se: float | None


@dataclass(frozen=True, slots=True)
class Score:
    """How one estimator did: mean log loss a group (nats) with its standard error, and mean squared error of p.

    `behind_best` is the mean difference to the best estimator's log loss on the same groups, 0 of itself; its standard
    error is clustered by problem. What the problems of one checkpoint have in common is not in it.
    `calibration` has for each tenth of the predicted pass rate (mean predicted, mean observed, groups).
    """

    estimator: str
    n_groups: int
    log_loss: float
    log_loss_se: float
    behind_best: float
    behind_best_se: float
    squared_error: float
    calibration: list[tuple[float, float, int]]
    by_checkpoint: list[CheckpointLoss]


@dataclass(frozen=True, slots=True)
class Scores:
    """Estimators over the groups of problems that were measured before, policies over the waves of checkpoints."""

    measurement_id: str
    n_reports: int
    n_waves: int
    scores: list[Score]
    policies: list[PolicyScore]


class ReplayStore:
    """Reads the log; changes nothing."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def score(self, measurement_id: int) -> Scores:
        """Every estimator's and policy's score on a measurement.

        Raises NotFound when there is none, and Conflict when no problem in its log was measured before.
        """
        n_reports, found, waves = await self._replayed(measurement_id)
        public_id = numbered("mea", measurement_id)
        if not found:
            seen = f"{n_reports} reports, none of a problem measured before" if n_reports else "nothing yet"
            raise Conflict(
                f"the log of {public_id!r} holds {seen}; measure its problems at two checkpoints",
                code="nothing_to_replay",
            )
        forecasts = {name: _Forecasts.concatenated(parts) for name, parts in found.items()}
        best = min(forecasts.values(), key=lambda forecast: -forecast.log_probability.mean())
        scores = [_score(name, forecast, best) for name, forecast in forecasts.items()]
        return Scores(public_id, n_reports, len(waves), scores, score_policies(waves))

    @reads
    def _replayed(self, conn: Connection, measurement_id: int) -> "tuple[int, dict[str, list[_Forecasts]], list[Wave]]":
        measurement_row(conn, measurement_id)
        stored = rows_as_dicts(conn.execute(rows_of(measurement_id)))
        log = Replay(conn, measurement_id, stored, line_of(conn, measurement_id))
        found: dict[str, list[_Forecasts]] = defaultdict(list)
        waves = WaveLog()
        n_reports = 0
        for report in log.reports():
            n_reports += 1
            groups = [group for group in report if log.line.holds(group.checkpoint_index)]
            waves.add(log, groups)
            for name, forecast in _forecasts(log, groups).items():
                found[name].append(forecast)
        return n_reports, found, list(waves.waves())


@dataclass(frozen=True, slots=True)
class _Forecasts:
    log_probability: FloatArray
    expected: FloatArray
    observed: FloatArray
    problem_id: IntArray
    checkpoint_index: IntArray

    @classmethod
    def concatenated(cls, parts: "list[_Forecasts]") -> "_Forecasts":
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))


def beta_binomial(a: Any, b: Any, k: FloatArray, n: FloatArray) -> FloatArray:
    """Log probability of k passes in n answers when p is Beta(a, b)."""
    log_p: FloatArray = _log_choose(n, k) + betaln(a + k, b + n - k) - betaln(a, b)
    return log_p


def _log_choose(n: FloatArray, k: FloatArray) -> FloatArray:
    found: FloatArray = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return found


def _first(columns: Columns, k: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    a, b = 0.5 + columns.first_passed, 0.5 + columns.first_counted - columns.first_passed
    return beta_binomial(a, b, k, n), a / (a + b)


def _newest(columns: Columns, k: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    a, b = 0.5 + columns.last_passed, 0.5 + columns.last_counted - columns.last_passed
    return beta_binomial(a, b, k, n), a / (a + b)


def _discounted(columns: Columns, k: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    a, b = fitted_prior(columns.audits)
    return _with_prior(columns, a[columns.skill], b[columns.skill], k, n)


def _unfitted(columns: Columns, k: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    return _with_prior(columns, UNFITTED, UNFITTED, k, n)


def _with_prior(columns: Columns, a: Any, b: Any, k: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    a, b = a + columns.discounted_passed, b + columns.discounted_failed
    return beta_binomial(a, b, k, n), a / (a + b)


def _logit(columns: Columns, k: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    return _gaussian(LoneBeliefs.of(columns).at(columns.now_index), k, n)


def _drift(columns: Columns, k: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    return _gaussian(Beliefs.of(columns).at(columns.now_index, columns.ability), k, n)


def _gaussian(belief: tuple[FloatArray, FloatArray], k: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    log_p, p = binomial_mixture(*belief, k, n)
    return log_p + _log_choose(n, k), p


FORECASTS: dict[str, Forecast] = {  # of the estimators that policies.py draws by
    "plug_in_first": _first,
    "plug_in_newest": _newest,
    "discounted_beta": _discounted,
    "discounted_beta_unfitted": _unfitted,
    "logit_filter": _logit,
    "drift_filter": _drift,
}


def _forecasts(log: Replay, groups: list[Group]) -> dict[str, _Forecasts]:
    """Forecasts of a report's groups that are counted, for problems that were counted before."""
    groups = [group for group in groups if group.n_counted and log.rows[group.problem_id]["first_counted"]]
    if not groups:
        return {}
    ids = np.array([group.problem_id for group in groups])
    indices = np.array([group.checkpoint_index for group in groups])
    columns = columns_at(log, ids.tolist(), indices)
    k = np.array([group.n_passed for group in groups], np.float64)
    n = np.array([group.n_counted for group in groups], np.float64)
    made = {name: forecast(columns, k, n) for name, forecast in FORECASTS.items()}
    return {name: _Forecasts(log_p, p, k / n, ids, indices) for name, (log_p, p) in made.items()}


def _score(name: str, found: _Forecasts, best: _Forecasts) -> Score:
    log_p, p, observed = found.log_probability, found.expected, found.observed
    behind = best.log_probability - log_p
    return Score(
        estimator=name,
        n_groups=len(p),
        log_loss=float(-log_p.mean()),
        log_loss_se=_standard_error(log_p) or 0.0,
        behind_best=float(behind.mean()),
        behind_best_se=clustered_error(behind, found.problem_id),
        squared_error=float(((p - observed) ** 2).mean()),
        calibration=_calibration(p, observed),
        by_checkpoint=[
            CheckpointLoss(index, len(losses), float(losses.mean()), _standard_error(losses))
            for index in np.unique(found.checkpoint_index).tolist()
            for losses in [-log_p[found.checkpoint_index == index]]
        ],
    )


def clustered_error(values: FloatArray, clusters: IntArray) -> float:
    """Standard error of the mean of values that depend on each other within a cluster; 0 of one cluster."""
    _, place = np.unique(clusters, return_inverse=True)
    sums = np.bincount(place, values - values.mean())
    n = len(sums)
    return float((n / (n - 1) * (sums**2).sum()) ** 0.5 / len(values)) if n > 1 else 0.0


def _standard_error(values: FloatArray) -> float | None:
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else None


def _calibration(p: FloatArray, observed: FloatArray) -> list[tuple[float, float, int]]:
    bins = np.minimum((p * N_BINS).astype(int), N_BINS - 1)
    rows: list[Any] = [(p[bins == i], observed[bins == i]) for i in range(N_BINS)]
    return [(float(said.mean()), float(was.mean()), len(said)) for said, was in rows if len(said)]
