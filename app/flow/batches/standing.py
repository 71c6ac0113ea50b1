"""Why one problem is drawn as often as it is, or not at all: what the law of a curriculum says of it now."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.clock import Clock
from app.flow.batches.body import effective_state
from app.flow.batches.law import Law
from app.flow.batches.store import BatchStore
from app.flow.batches.subsets import pool_of, subsets_of
from app.flow.curricula.rule import Rule
from app.flow.curricula.store import CurriculumStore
from app.flow.curricula.weighting import peak
from app.flow.estimates.columns import IntArray
from app.flow.estimates.estimators import make_estimator
from app.flow.estimates.service import EstimateService
from paced.wire import BatchState

N_SAMPLED = 65_536  # rows from which the mean weight is taken: half a per cent is near enough to explain
N_SHOWN = 50


@dataclass(frozen=True, slots=True)
class BatchOfProblem:
    """A batch that held the problem, and what the draw gave it; the draw probability is None where there is none."""

    batch_id: str
    seq: int
    step: int
    stage: str
    state: str
    run_id: str | None
    created_at: dt.datetime
    expires_at: dt.datetime
    pass_rate: float
    weight: float
    draw_probability: float | None
    loss_weight: float


@dataclass(frozen=True, slots=True)
class Standing:
    """A problem under a curriculum now.

    `reasons` say why it cannot be drawn; there are none if it can. `times_mean` is its chance over that of the mean
    problem that can be drawn, None where nothing has weight. Estimates are the curriculum's own.
    """

    reasons: list[str]
    pass_rate: float | None
    low: float | None
    high: float | None
    weight: float
    relative_weight: float
    times_mean: float | None
    estimator: str
    alpha: float
    beta: float
    gamma: float
    mode: str
    batches: list[BatchOfProblem]


class StandingService:
    """Asks the law of a curriculum about one problem."""

    def __init__(self, store: BatchStore, curricula: CurriculumStore, estimates: EstimateService, clock: Clock) -> None:
        self._store = store
        self._curricula = curricula
        self._estimates = estimates
        self._clock = clock

    async def standing(self, curriculum_id: str, ordinal: int) -> Standing:
        """How a problem stands under a curriculum; the newest of its batches first."""
        now = self._clock()
        curriculum = await self._curricula.get(curriculum_id)
        rule, pool = Rule.model_validate(curriculum["rule"]), await pool_of(self._estimates, curriculum)
        subsets = await subsets_of(self._estimates, curriculum["measurement_id"], pool, rule)
        held, last_seq = await self._store.holding(curriculum_id, ordinal, N_SHOWN)
        shown = [_shown(fields, now) for fields in held]
        law = Law(pool, rule, curriculum["holdout_share"], now)
        admitted = np.arange(len(pool)) if not subsets else _union(list(subsets.values()), len(pool))
        blocked = _blocked(law, ordinal, admitted, now) + _recent(shown, rule, last_seq)
        return _standing(law, ordinal, admitted, blocked, shown)


def _union(parts: list[IntArray | None], n: int) -> IntArray:
    rows = [np.arange(n) if part is None else part for part in parts]
    return np.unique(np.concatenate(rows))


def _blocked(law: Law, ordinal: int, admitted: IntArray, now: dt.datetime) -> list[str]:
    """What of the problem itself, of the filters and of its estimate keeps it from being drawn."""
    pool, filters, row = law.pool, law.rule.filters, np.array([ordinal])
    found = []
    if not pool.is_ready[ordinal]:
        found.append("It is set aside: only ready problems are leased and drawn. Decide about it below.")
    elif not law.is_trained(row)[0]:
        found.append("It is held out: the hold-out measures progress and is never trained on.")
    until = float(pool.quarantined_until[ordinal])
    if until > now.timestamp():
        when = dt.datetime.fromtimestamp(until, dt.UTC)
        found.append(f"It is in quarantine until {when:%Y-%m-%d %H:%M} UTC: its rollouts gave no verdict.")
    if ordinal not in admitted:
        found.append("The curriculum's filters name tags or sources that it does not have.")
    if filters.min_groups > pool.n_groups[ordinal]:
        n = int(pool.n_groups[ordinal])
        found.append(f"It was measured in {n} groups, and the curriculum asks for {filters.min_groups}.")
    p = float(law.terms(row).pass_rate[0])
    if filters.band is not None and not filters.band[0] < p < filters.band[1]:
        low, high = filters.band
        found.append(f"Its estimate is not inside the curriculum's band, {low:g} < p < {high:g}.")
    if not law.is_known(row)[0]:
        found.append("It was not measured yet, and this estimator has no prior to draw by.")
    elif law.terms(row).power[0] <= 0.0:
        found.append("Its weight is 0: as far as this estimator knows, the student always or never solves it.")
    return found


def _recent(held: list[BatchOfProblem], rule: Rule, last_seq: int) -> list[str]:
    """Open batches that hold the problem, and those that it cools down from."""
    is_open = [batch for batch in held if batch.state == BatchState.OPEN]
    found = [
        f"It is in the open batch {batch.batch_id}, until that is acknowledged or expires at "
        f"{batch.expires_at:%Y-%m-%d %H:%M} UTC."
        for batch in is_open
    ]
    cooldown = rule.filters.cooldown_batches
    since = last_seq + 1 - cooldown
    if any(batch.seq >= since and batch.state == BatchState.ACKNOWLEDGED for batch in held):
        found.append(f"It cools down: a batch of the last {cooldown} held it.")
    return found


def _standing(
    law: Law, ordinal: int, admitted: IntArray, blocked: list[str], batches: list[BatchOfProblem]
) -> Standing:
    rule, row = law.rule, np.array([ordinal])
    terms, estimator = law.terms(row), make_estimator(rule.estimator)
    first, second = law.posteriors(row)[0]
    low, high = estimator.interval(np.array([first]), np.array([second]))
    is_known = bool(law.is_known(row)[0])
    mean = _mean_power(law, admitted)
    return Standing(
        reasons=blocked,
        pass_rate=float(terms.pass_rate[0]) if is_known else None,
        low=float(low[0]) if is_known else None,
        high=float(high[0]) if is_known else None,
        weight=float(terms.weight[0]),
        relative_weight=float(terms.weight[0]) / peak(rule.kernel),
        times_mean=float(terms.power[0]) / mean if mean > 0.0 else None,
        estimator=rule.estimator.name,
        alpha=rule.kernel.alpha,
        beta=rule.kernel.beta,
        gamma=rule.gamma,
        mode=rule.mode.value,
        batches=batches,
    )


def _mean_power(law: Law, admitted: IntArray) -> float:
    """Mean power of the problems that may be drawn, from evenly spaced ones where there are many."""
    step = max(1, len(admitted) // N_SAMPLED)
    rows = admitted[::step]
    rows = rows[law.is_trained(rows) & law.is_wanted(rows)] if len(rows) else rows
    return float(law.terms(rows).power.mean()) if len(rows) else 0.0


def _shown(fields: dict[str, Any], now: dt.datetime) -> BatchOfProblem:
    chance = fields["draw_probability"]
    return BatchOfProblem(
        **{
            **fields,
            "stage": str(fields["stage"].value),
            "state": effective_state(fields, now).value,
            "draw_probability": None if np.isnan(chance) else chance,
        }
    )
