"""The drift and logit filters: against dense grids and an eager form, and what a skill's problems learn from others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit, ndtri
from scipy.stats import binom, norm

from app.flow.estimates import filters
from app.flow.estimates.columns import Columns
from app.flow.estimates.estimators import Gaussian
from app.flow.estimates.filters import (
    Abilities,
    Beliefs,
    LoneBeliefs,
    observe,
    observe_alone,
    sigmoid_moments,
    weigh,
    weigh_quickly,
)
from paced.wire import Kernel

ALONE, DRIFT = Gaussian(is_alone=True), Gaussian(is_alone=False)
means = st.floats(-4, 4)
variances = st.floats(0.01, filters.PRIOR_VARIANCE)
histories = st.lists(
    st.tuples(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 8)), min_size=1, max_size=6), st.integers(0, 2)),
    min_size=1,
    max_size=6,
)


def one(value: float) -> np.ndarray:
    return np.array([value])


def expectation(mean: float, variance: float, of: object) -> float:
    density, reach = norm(mean, variance**0.5).pdf, 12 * variance**0.5
    near = [mean + step * variance**0.5 for step in (-3, -1, 0, 1, 3)]
    return float(
        quad(lambda x: of(x) * density(x), mean - reach, mean + reach, limit=400, epsabs=1e-13, points=near)[0]
    )  # type: ignore[operator]


@given(mean=means, variance=variances, alpha=st.floats(0, 6), beta=st.floats(0, 6))
def test_the_expected_weight_is_the_integral(mean: float, variance: float, alpha: float, beta: float) -> None:
    p, found = (float(array[0]) for array in weigh(one(mean), one(variance), alpha, beta))
    exact = expectation(mean, variance, lambda x: expit(x) ** alpha * expit(-x) ** beta)
    assert found == pytest.approx(exact, abs=1e-9)
    assert p == pytest.approx(expectation(mean, variance, expit), abs=1e-9)


@given(mean=st.floats(-60, 60), variance=variances, alpha=st.floats(0, 6), beta=st.floats(0, 6))
def test_draws_weigh_by_the_same_to_six_digits(mean: float, variance: float, alpha: float, beta: float) -> None:
    for kernel in ((alpha, beta), (1.0, 1.0)):
        exact, quick = (of(one(mean), one(variance), *kernel) for of in (weigh, weigh_quickly))
        assert quick[0] == pytest.approx(exact[0], abs=1e-6)
        assert quick[1] == pytest.approx(exact[1], abs=1e-6)


@given(mean=means, variance=variances)
def test_the_moments_are_integrals(mean: float, variance: float) -> None:
    p, slope, spread = (float(array[0]) for array in sigmoid_moments(one(mean), one(variance)))
    assert p == pytest.approx(expectation(mean, variance, expit), abs=1e-9)
    assert slope == pytest.approx(expectation(mean, variance, lambda x: expit(x) * expit(-x)), abs=1e-9)
    assert spread == pytest.approx(expectation(mean, variance, lambda x: expit(x) ** 2) - p * p, abs=1e-9)


@given(k=st.integers(0, 8), mean=means, variance=st.floats(0.05, filters.PRIOR_VARIANCE))
def test_one_group_gives_nearly_the_posterior_of_a_dense_grid(k: int, mean: float, variance: float) -> None:
    """Without an ability to move, the Newton step is the Laplace approximation of the exact posterior."""
    belief = Beliefs(one(mean), one(variance), one(0.0), np.array([0]))
    still = Abilities(one(0.0), one(1e-12), np.array([0]))
    found, _ = observe(belief, still, np.array([0]), one(float(k)), one(8.0), 0)
    grid = np.linspace(mean - 10, mean + 10, 40_001)
    density = norm.pdf(grid, mean, variance**0.5) * binom.pmf(k, 8, expit(grid))
    density /= density.sum()
    exact_p = float(density @ expit(grid))
    found_p = float(sigmoid_moments(found.mean, found.variance)[0][0])
    assert found_p == pytest.approx(exact_p, abs=0.025)
    assert found.variance[0] <= variance


def on_a_grid(history: list[tuple[int, int, int]]) -> tuple[float, float]:
    """E[p] and E[w] of the same model without any Gaussian: densities on a grid, widened by convolution."""
    grid = np.linspace(-13, 13, 651)
    density = norm.pdf(grid, filters.PRIOR_MEAN, filters.PRIOR_VARIANCE**0.5)
    density /= density.sum()
    for k, n, waited in history:
        variance = float(density @ grid**2 - (density @ grid) ** 2)
        added = min(filters.ALONE_DRIFT * waited, filters.PRIOR_VARIANCE - variance)
        if added > 1e-6:
            moves = norm.pdf(grid[:, None] - grid[None, :], 0, added**0.5)
            density = moves / moves.sum(axis=0) @ density
        density = density * binom.pmf(k, n, expit(grid))
        density /= density.sum()
    return float(density @ expit(grid)), float(density @ (expit(grid) * expit(-grid)))


def drawn(seed: int, waits: list[int]) -> list[tuple[int, int, int]]:
    """A history that the model itself may give: (passed, counted, checkpoints waited) of a logit that walks."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(filters.PRIOR_MEAN, filters.PRIOR_VARIANCE**0.5)
    history = []
    for waited in waits:
        logit += rng.normal(0, (filters.ALONE_DRIFT * waited) ** 0.5)
        n = int(rng.integers(1, 17))
        history.append((int(rng.binomial(n, expit(logit))), n, waited))
    return history


@given(seed=st.integers(0, 2**32), waits=st.lists(st.integers(0, 30), min_size=1, max_size=6))
@settings(derandomize=True)  # a rare history of the model errs more: the bound is of these hundred
def test_the_logit_filter_is_nearly_a_dense_grid_over_whole_histories(seed: int, waits: list[int]) -> None:
    """Errors of the Laplace steps stay below 0.07 of p and 0.04 of w (whose peak is 0.25), and do not pile up.

    That is on what the model may bring about: five times 0/8 and at once 8/8 would be 0.2 of p off.
    """
    columns, index = Columns.zeros(1), 0
    history = drawn(seed, waits)
    for k, n, waited in history:
        index += waited
        columns.alone_mean, columns.alone_variance = observe_alone(
            LoneBeliefs.of(columns), one(float(k)), one(float(n)), index
        )
        columns.first_counted[0], columns.belief_index[0] = n, index
    columns.now_index = index
    p, w = (float(array[0]) for array in ALONE.weigh(columns, Kernel()))
    exact_p, exact_w = on_a_grid(history)
    assert p == pytest.approx(exact_p, abs=0.07)
    assert w == pytest.approx(exact_w, abs=0.04)


def test_the_logit_filter_learns_nothing_from_other_problems_and_widens_up_to_the_prior() -> None:
    columns = Columns.zeros(2)
    mean, variance = observe_alone(LoneBeliefs.of(columns.take(np.array([0]))), one(8.0), one(8.0), 0)
    columns.alone_mean[0], columns.alone_variance[0], columns.first_counted[0] = mean[0], variance[0], 8
    columns.levels = one(3.0)
    p = ALONE.pass_rate(columns)
    assert p[0] > 0.85
    assert p[1] == pytest.approx(0.5)
    widths = []
    for columns.now_index in (0, 1, 10, 100_000):
        widths.append(float(LoneBeliefs.of(columns).at(columns.now_index)[1][0]))
    assert widths == pytest.approx(
        [variance[0], variance[0] + filters.ALONE_DRIFT, variance[0] + 10 * filters.ALONE_DRIFT, filters.PRIOR_VARIANCE]
    )


@given(history=histories, n_skills=st.integers(1, 3))
def test_lazy_beliefs_equal_eager_ones(history: list[tuple[list[tuple[int, int]], int]], n_skills: int) -> None:
    """Moving every belief at once with its ability gives the same as adding the difference when it is read."""
    n, index = 6, 0
    skills = np.arange(n) % n_skills
    columns, abilities = Columns.zeros(n), Abilities.prior(n_skills)
    eager_mean = np.full(n, filters.PRIOR_MEAN)
    eager_variance = np.full(n, filters.PRIOR_VARIANCE)
    eager_index = np.zeros(n, np.int64)
    for groups, waited in history:
        index += waited
        rows = np.array(sorted({row for row, _ in groups}))
        k = np.array([float(dict(groups)[row]) for row in rows])
        before = abilities.level.copy()
        found, abilities = observe(
            Beliefs.of(columns.take(rows)), abilities, skills[rows], k, np.full(len(rows), 8.0), index
        )
        _store(columns, rows, found)
        eager_mean += (abilities.level - before)[skills]
        drifted = np.minimum(
            eager_variance[rows] + filters.PROBLEM_DRIFT * (index - eager_index[rows]), filters.PRIOR_VARIANCE
        )
        eager_mean[rows], eager_variance[rows] = filters._newton(eager_mean[rows], drifted, k, np.full(len(rows), 8.0))
        eager_index[rows] = index
    lazy_mean, _ = Beliefs.of(columns).at(index, abilities.level[skills])
    assert lazy_mean == pytest.approx(eager_mean, abs=1e-9)
    measured = columns.first_counted > 0
    assert columns.logit_variance[measured] == pytest.approx(eager_variance[measured], rel=1e-9)


def _store(columns: Columns, rows: np.ndarray, found: Beliefs) -> None:
    columns.first_counted[rows] = 8
    columns.logit_mean[rows], columns.logit_variance[rows] = found.mean, found.variance
    columns.ability_seen[rows], columns.belief_index[rows] = found.ability_seen, found.index


def test_problems_not_measured_follow_their_skill_and_no_other() -> None:
    """Forty problems of a skill all pass: the rest of that skill is taken for easier, another skill is not."""
    skills = np.repeat([0, 1], 50)
    columns, abilities = Columns.zeros(100), Abilities.prior(2)
    rows = np.arange(40)
    found, abilities = observe(
        Beliefs.of(columns.take(rows)), abilities, skills[rows], np.full(40, 8.0), np.full(40, 8.0), 1
    )
    _store(columns, rows, found)
    columns.skill, columns.levels, columns.now_index = skills, abilities.level, 1
    p = DRIFT.pass_rate(columns)
    assert p[:40].min() > p[40:50].max() > 0.75
    assert p[50:] == pytest.approx(0.5)
    low, high = DRIFT.interval(*DRIFT.posterior(columns))
    assert ((low < p) & (p < high)).all()
    assert (high - low)[:40].max() < (high - low)[50:].min()


@given(mean=means, variance=variances, alpha=st.floats(0, 6), beta=st.floats(0, 6))
def test_the_weight_is_bounded_and_symmetric(mean: float, variance: float, alpha: float, beta: float) -> None:
    found = weigh(one(mean), one(variance), alpha, beta)[1][0]
    total = alpha + beta
    peak = alpha**alpha * beta**beta / total**total if total else 1.0
    assert 0 < found <= peak * (1 + 1e-9)
    assert weigh(one(-mean), one(variance), beta, alpha)[1][0] == pytest.approx(found, rel=1e-9)


def test_a_wait_widens_a_belief_up_to_the_prior() -> None:
    belief = Beliefs(one(1.0), one(0.2), one(0.0), np.array([3]))
    width = [float(belief.at(index, one(0.0))[1][0]) for index in (2, 3, 4, 10_000)]
    assert width == pytest.approx([0.2, 0.2, 0.2 + filters.PROBLEM_DRIFT, filters.PRIOR_VARIANCE])


def test_the_shown_interval_holds_ninety_per_cent() -> None:
    columns = Columns.zeros(1)
    low, high = DRIFT.interval(*DRIFT.posterior(columns))
    assert float(norm.cdf(_logit(high[0]), 0, filters.PRIOR_VARIANCE**0.5)) == pytest.approx(0.95)
    assert float(norm.cdf(_logit(low[0]), 0, filters.PRIOR_VARIANCE**0.5)) == pytest.approx(0.05)
    assert float(ndtri(0.95)) > 0
    assert DRIFT.expected_weight(columns, Kernel())[0] > 0.1


def _logit(p: float) -> float:
    return float(np.log(p / (1 - p)))
