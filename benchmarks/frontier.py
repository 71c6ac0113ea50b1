"""Estimators on simulated students: how near the estimated weights are to the true ones, at equal rollouts.

20,000 problems of 40 skills; logit p = ability of the skill - difficulty. Abilities rise by a rate of each skill's own
and wander, difficulties wander a little, at every step: `fast` moves about three logits in all, `slow` a third of one.
Each step is a checkpoint: 512 problems are measured with 8 answers each, three quarters of them the longest unmeasured,
the rest uniform, and every arm sees the same answers. Nothing of the simulation is known to the estimators, which are
the service's own; but its world is logistic and its skills are the tags, which suits the drift filter: the rows
`blind` give every problem a random tag instead.

rmse: of E[w] against the true w, over the last 60 % of the steps. total_variation: between the law of a draw and the
true law, which is proportional to w. reach: share of the weight of the truly best fifth that the law can draw at all.
recall: share of that weight drawn within ten steps of 256.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from app.flow.batches.samplers import exponential_keys
from app.flow.estimates.columns import Columns, FloatArray, IntArray
from app.flow.estimates.estimators import Beta, Estimator, Gaussian, PlugIn, is_inside
from benchmarks.known import Known
from paced.wire import Kernel

K = 8
BATCH = 256
WINDOW = 10  # steps within which a problem should be drawn
BEST_SHARE = 0.2
WARM_UP = 0.4
KERNEL = Kernel()
BUDGETS = (1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 6)


@dataclass(frozen=True)
class World:
    """A simulated student; rates are logits a step."""

    name: str
    rise: float
    wander: float
    n_problems: int = 20_000
    n_skills: int = 40
    n_steps: int = 100
    n_measured: int = 512
    difficulty_wander: float = 0.02
    is_blind: bool = False


FAST = World("fast", rise=0.05, wander=0.03)
SLOW = World("slow", rise=0.005, wander=0.01)


@dataclass(frozen=True)
class Arm:
    """An estimator and the law that it draws by."""

    estimator: Estimator
    law: Callable[[Estimator, Columns], FloatArray]


def power(gamma: float) -> Callable[[Estimator, Columns], FloatArray]:
    """Draw in proportion to E[w]^gamma."""
    return lambda estimator, columns: estimator.expected_weight(columns, KERNEL) ** gamma


def band(estimator: Estimator, columns: Columns) -> FloatArray:
    """Draw uniformly from the problems whose estimate lies in the band (the hard filter)."""
    return is_inside(estimator.pass_rate(columns)).astype(np.float64)


ARMS = {
    "plug_in_newest": Arm(PlugIn(is_first=False), power(1.0)),
    "hard_filter": Arm(PlugIn(is_first=False), band),
    "discounted_beta": Arm(Beta(0.5, 0.5), power(2.0)),
    "fitted_beta": Arm(Beta(is_fitted=True), power(2.0)),
    "logit_filter": Arm(Gaussian(is_alone=True), power(2.0)),
    "drift_filter": Arm(Gaussian(is_alone=False), power(2.0)),
    "drift_filter_sharp": Arm(Gaussian(is_alone=False), power(3.0)),
}


def run(small: bool) -> dict[str, Any]:
    """Every arm in every world, with the spread over seeds; ratios of means for the figures."""
    seeds = range(3 if small else 5)
    worlds = [_sized(world, small) for world in (FAST, SLOW, replace(FAST, name="fast_blind", is_blind=True))]
    rows = []
    for world in worlds:
        results = [simulate(world, ARMS, seed) for seed in seeds]
        rows += [_row(world, name, [result[name] for result in results]) for name in ARMS]
    budget_rows = [_budget_row(worlds[0], budget, seeds) for budget in BUDGETS]
    return {
        "settings": {"n_seeds": len(seeds), "worlds": [world.__dict__ for world in worlds]},
        "rows": rows + budget_rows,
        "figures": _figures(rows, budget_rows),
    }


def simulate(world: World, arms: dict[str, Arm], seed: int) -> dict[str, dict[str, float]]:
    """Means over the steps after the warm-up, by arm; every arm sees the same answers."""
    rng = np.random.default_rng(seed)
    student = _Student(world, rng)
    skills = rng.integers(0, world.n_skills, world.n_problems) if world.is_blind else student.skills
    known = Known(skills, world.n_skills)
    draws = {name: _Draws(np.random.default_rng([seed, i])) for i, name in enumerate(arms)}
    for step in range(world.n_steps):
        student.move()
        rows, is_audit = known.due(world.n_measured, rng)
        n_passed = rng.binomial(K, student.p[rows]).astype(np.float64)
        known.count(rows, is_audit, n_passed, K, step)
        if step < WARM_UP * world.n_steps:
            continue
        for name, arm in arms.items():
            draws[name].judge(arm, known.pool.columns, student.p)
    return {name: draw.means() for name, draw in draws.items()}


class _Student:
    def __init__(self, world: World, rng: np.random.Generator) -> None:
        n, self._rng, self._world = world.n_problems, rng, world
        self.skills = rng.integers(0, world.n_skills, n)
        self._difficulty = rng.normal(0, 1.5, n) + rng.normal(0, 1.0, world.n_skills)[self.skills]
        self._ability = rng.normal(-1.5, 0.3, world.n_skills)
        self._rise = rng.gamma(2.0, world.rise / 2, world.n_skills)

    def move(self) -> None:
        """One step of training."""
        self._ability += self._rise + self._world.wander * self._rng.normal(size=len(self._ability))
        self._difficulty += self._world.difficulty_wander * self._rng.normal(size=len(self._difficulty))

    @property
    def p(self) -> FloatArray:
        p: FloatArray = 1 / (1 + np.exp(self._difficulty - self._ability[self.skills]))
        return p


class _Draws:
    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._recent: list[IntArray] = []
        self._found: list[tuple[float, float, float]] = []
        self._recalls: list[float] = []

    def judge(self, arm: Arm, columns: Columns, p: FloatArray) -> None:
        """Compare an arm's weights and law with the truth, and draw one batch."""
        w = p * (1 - p)
        law = arm.law(arm.estimator, columns)
        law = law / law.sum()
        error = arm.estimator.expected_weight(columns, KERNEL) - w
        best = np.argsort(w)[-int(BEST_SHARE * len(w)) :]
        reach = w[best][law[best] > 0].sum() / w[best].sum()
        self._found.append((float((error**2).mean()), float(np.abs(law - w / w.sum()).sum() / 2), float(reach)))
        self._recent = [*self._recent, exponential_keys(law, BATCH, self._rng)][-WINDOW:]
        if len(self._recent) == WINDOW:
            drawn = np.isin(best, np.concatenate(self._recent))
            self._recalls.append(float(w[best][drawn].sum() / w[best].sum()))

    def means(self) -> dict[str, float]:
        """Over all judged steps."""
        square, variation, reach = np.mean(self._found, axis=0).tolist()
        recall = float(np.mean(self._recalls))
        return {"rmse": square**0.5, "total_variation": variation, "reach": reach, "recall": recall}


def _sized(world: World, small: bool) -> World:
    return replace(world, n_problems=6_000, n_steps=60, n_measured=154) if small else world


def _row(world: World, arm: str, results: list[dict[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"world": world.name, "arm": arm}
    for name in results[0]:
        values = np.array([result[name] for result in results])
        row[name] = round(float(values.mean()), 5)
        row[f"{name}_se"] = round(float(values.std(ddof=1) / len(values) ** 0.5), 5)
    return row


def _budget_row(world: World, budget: float, seeds: range) -> dict[str, Any]:
    less = replace(world, n_measured=round(world.n_measured * budget))
    arm = {"drift_filter": ARMS["drift_filter"]}
    results = [simulate(less, arm, seed)["drift_filter"] for seed in seeds]
    return {**_row(world, "drift_filter", results), "budget": round(budget, 4)}


def _figures(rows: list[dict[str, Any]], budget_rows: list[dict[str, Any]]) -> dict[str, Any]:
    by = {(row["world"], row["arm"]): row for row in rows}

    def ratio(figure: str, world: str, other: str) -> float:
        return round(by[world, "drift_filter"][figure] / by[world, other][figure], 4)

    return {
        "rmse_ratio_fast": ratio("rmse", "fast", "plug_in_newest"),
        "rmse_ratio_slow": ratio("rmse", "slow", "plug_in_newest"),
        "rmse_ratio_fast_over_discounted_beta": ratio("rmse", "fast", "discounted_beta"),
        "rmse_ratio_slow_over_discounted_beta": ratio("rmse", "slow", "discounted_beta"),
        "rmse_ratio_fast_blind": ratio("rmse", "fast_blind", "plug_in_newest"),
        "reach": by["fast", "drift_filter"]["reach"],
        "recall_ratio": ratio("recall", "fast", "plug_in_newest"),
        "recall_ratio_over_hard_filter": ratio("recall", "fast", "hard_filter"),
        "recall_ratio_slow_over_hard_filter": ratio("recall", "slow", "hard_filter"),
        "rollouts_ratio": _equal_error(by["fast", "discounted_beta"]["rmse"], budget_rows),
    }


def _equal_error(wanted: float, budget_rows: list[dict[str, Any]]) -> float:
    """The share of the rollouts with which the drift filter errs as much as `wanted`; the smallest tried if less."""
    errors = [row["rmse"] for row in budget_rows]
    logs = np.interp(np.log(wanted), np.log(errors), np.log([row["budget"] for row in budget_rows]))
    return round(float(np.exp(logs)), 4)
