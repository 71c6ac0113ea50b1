"""How well each way to draw would have spent a checkpoint's answers, going by what was known before them.

A wave is all that was answered at one checkpoint, of problems measured before it began. Each policy is the law of its
start. The truth of a problem is the unbiased weight k(n-k)/(n(n-1)) of its answers in the wave, which estimates
p(1-p), the weight of the default kernel. One group is a noisy truth: compare policies, not with 1.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from app.flow.estimates.columns import AUDITS, UNFITTED, BoolArray, Columns, FloatArray, IntArray
from app.flow.estimates.estimators import Estimator, is_inside, make_estimator
from app.flow.estimates.rebuild import Replay
from app.flow.rollouts.groups import Group
from paced.wire import DiscountedBeta, DriftFilter, Kernel, LogitFilter, PlugInFirst, PlugInNewest

Law = Callable[[FloatArray, FloatArray], FloatArray]

KERNEL = Kernel()
N_BEST, N_DRAWN = 5, 10  # the best fifth is looked for by drawing a tenth
MIN_PROBLEMS = 10  # of a wave
N_SIMULATED, SEED = 200, 0
ANY, UNIFORM, THOMPSON = "any", "uniform", "thompson"


def _powered(gamma: float) -> Law:
    def law(_p: FloatArray, w: FloatArray) -> FloatArray:
        largest = float(w.max())
        powered: FloatArray = (w / largest) ** gamma if largest > 0.0 else w
        return powered

    return law


def _inside(p: FloatArray, _w: FloatArray) -> FloatArray:
    return is_inside(p).astype(np.float64)


LAWS: dict[str, Law] = {
    "weight": _powered(1.0),
    "weight^2": _powered(2.0),
    "weight^4": _powered(4.0),
    "hard_filter": _inside,
}
ESTIMATORS: dict[str, Estimator] = {
    "plug_in_first": make_estimator(PlugInFirst()),
    "plug_in_newest": make_estimator(PlugInNewest()),
    "discounted_beta": make_estimator(DiscountedBeta()),
    "discounted_beta_unfitted": make_estimator(DiscountedBeta(prior_a=UNFITTED, prior_b=UNFITTED)),
    "logit_filter": make_estimator(LogitFilter()),
    "drift_filter": make_estimator(DriftFilter()),
}


@dataclass(frozen=True, slots=True)
class Average:
    """Mean over waves with its standard error; None where no wave, or only one, has a value."""

    mean: float | None
    se: float | None
    n_waves: int


@dataclass(frozen=True, slots=True)
class PolicyScore:
    """How one policy spent the waves.

    `reach`: share of the true weight of the truly best fifth that the law can draw at all. `waste`: share of the
    law's mass on problems that then passed always or never; Thompson sampling has no law in closed form, so of it the
    share of the problems drawn. `recall`: share of the best fifth's true weight in one draw of a tenth of the wave's
    problems, without replacement. The uniform policy asks no estimator: its `estimator` is "any".
    """

    estimator: str
    policy: str
    reach: Average
    waste: Average
    recall: Average


@dataclass(frozen=True, slots=True)
class Wave:
    """What was known of problems at the start of a wave, and how many of their answers then passed."""

    checkpoint_index: int
    known: Columns
    n_passed: FloatArray
    n_counted: FloatArray


class WaveLog:
    """Gathers waves while a log is replayed."""

    def __init__(self) -> None:
        self._starts: dict[int, tuple[dict[int, int], Columns]] = {}
        self._answers: dict[int, dict[int, tuple[int, int]]] = {}

    def add(self, log: Replay, groups: Iterable[Group]) -> None:
        """Take a report's groups before the log counts them; the first one of a checkpoint starts its wave."""
        for group in groups:
            index = group.checkpoint_index
            if index not in self._starts:
                ids = [problem_id for problem_id, row in log.rows.items() if row["first_counted"]]
                places = {problem_id: place for place, problem_id in enumerate(ids)}
                self._starts[index] = places, columns_at(log, ids, index)
            answers = self._answers.setdefault(index, {})
            k, n = answers.get(group.problem_id, (0, 0))
            answers[group.problem_id] = k + group.n_passed, n + group.n_counted

    def waves(self) -> Iterator[Wave]:
        """The waves with enough problems, by checkpoint; a problem needs two counted answers in the wave."""
        for index, (places, known) in sorted(self._starts.items()):
            answers = self._answers[index]
            ids = [i for i, (_, n) in sorted(answers.items()) if n > 1 and i in places]
            if len(ids) >= MIN_PROBLEMS:
                k, n = np.array([answers[i] for i in ids], np.float64).T
                yield Wave(index, known.take(np.array([places[i] for i in ids])), k, n)


def columns_at(log: Replay, problem_ids: Sequence[int], now_index: int | IntArray) -> Columns:
    """Columns of problems as the log knows them so far, read at a checkpoint (one for all, or one a problem)."""
    rows = [log.rows[problem_id] for problem_id in problem_ids]
    places = {skill: place for place, skill in enumerate(log.skills)}
    columns = Columns.of_rows(rows)
    columns.skill = np.array([places[row["skill"]] for row in rows], np.int64)
    columns.levels = np.array([ability["level"] for ability in log.skills.values()])
    sums = [[ability[name] for name in AUDITS] for ability in log.skills.values()]
    columns.audits = np.array(sums, np.float64).reshape(len(sums), len(AUDITS))
    columns.now_index = now_index
    return columns


def score_policies(waves: Sequence[Wave]) -> list[PolicyScore]:
    """Every (estimator, policy) on every wave."""
    found = [_outcomes(wave) for wave in waves]
    return [
        PolicyScore(*pair, *(_average([outcomes[pair][i] for outcomes in found]) for i in range(3)))
        for pair in (found[0] if found else ())
    ]


def best_shares(weights: FloatArray) -> FloatArray:
    """Each problem's share of the weight of the best fifth; zeros where there is no weight.

    Problems that tie at its edge share what room is left: no order among them is made up.
    """
    room = len(weights) / N_BEST
    edge = np.sort(weights)[-int(np.ceil(room))]
    is_above, is_edge = weights > edge, weights == edge
    held: FloatArray = weights * (is_above + is_edge * (room - is_above.sum()) / is_edge.sum())
    return held / held.sum() if held.any() else held


def successive_draw(law: FloatArray, size: int, rng: np.random.Generator) -> IntArray:
    """Up to `size` distinct rows by successive sampling, in no order (exponential clocks, one a row).

    Every row takes its number whatever its law, so that policies with one seed differ by their laws alone.
    """
    clocks = rng.standard_exponential(len(law))
    with np.errstate(over="ignore"):  # the clock of a law near 0 rings at infinity: never
        rings = np.divide(clocks, law, out=np.full(len(law), np.inf), where=law > 0.0)
    first = np.argpartition(rings, size - 1)[:size]
    drawn: IntArray = first[np.isfinite(rings[first])]
    return drawn


@dataclass(frozen=True, slots=True)
class _Truth:
    best: FloatArray
    is_wasted: BoolArray

    @classmethod
    def of(cls, k: FloatArray, n: FloatArray) -> "_Truth":
        return cls(best_shares(k * (n - k) / (n * (n - 1))), (k == 0) | (k == n))

    def outcome(self, can_draw: BoolArray, mass: FloatArray, batches: Sequence[IntArray]) -> tuple[float, float, float]:
        """(reach, waste, recall), NaN where nothing can be said."""
        held = [float(self.best[rows].sum()) for rows in batches]
        is_any, total = self.best.any(), float(mass.sum())
        return (
            float(self.best[can_draw].sum()) if is_any else np.nan,
            float(mass[self.is_wasted].sum()) / total if total > 0.0 else np.nan,
            float(np.mean(held)) if is_any else np.nan,
        )


def _outcomes(wave: Wave) -> dict[tuple[str, str], tuple[float, float, float]]:
    truth = _Truth.of(wave.n_passed, wave.n_counted)
    n = len(wave.known)
    size = max(1, n // N_DRAWN)

    def by_law(law: FloatArray) -> tuple[float, float, float]:
        rng = _generator(wave)
        return truth.outcome(law > 0.0, law, [successive_draw(law, size, rng) for _ in range(N_SIMULATED)])

    def by_sampling(estimator: Estimator, can_draw: BoolArray) -> tuple[float, float, float]:
        rng = _generator(wave)
        sampled = (estimator.sampled_weight(wave.known, KERNEL, rng) for _ in range(N_SIMULATED))
        batches = [rows[w[rows] > 0.0] for w in sampled for rows in [np.argpartition(-w, size - 1)[:size]]]
        return truth.outcome(can_draw, np.bincount(np.concatenate(batches), minlength=n).astype(np.float64), batches)

    found = {(ANY, UNIFORM): by_law(np.ones(n))}
    for name, estimator in ESTIMATORS.items():
        p, w = estimator.weigh(wave.known, KERNEL)
        found |= {(name, policy): by_law(law(p, w)) for policy, law in LAWS.items()}
        found[name, THOMPSON] = by_sampling(estimator, w > 0.0)
    return found


def _generator(wave: Wave) -> np.random.Generator:
    return np.random.default_rng([SEED, wave.checkpoint_index])


def _average(values: Sequence[float]) -> Average:
    seen = np.array([value for value in values if not np.isnan(value)])
    mean = float(seen.mean()) if len(seen) else None
    se = float(seen.std(ddof=1) / len(seen) ** 0.5) if len(seen) > 1 else None
    return Average(mean, se, len(seen))
