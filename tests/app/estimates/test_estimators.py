"""Estimators: E[w] against quadrature, the contract that all keep, and the discounted recursion."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import beta as beta_function

from app.flow.estimates.columns import DISCOUNT, NAMES, Columns, observed
from app.flow.estimates.estimators import Beta, Estimator, Gaussian, PlugIn, make_estimator, weight
from app.flow.estimates.filters import Abilities, Beliefs, LoneBeliefs, observe, observe_alone
from paced.wire import DiscountedBeta, DriftFilter, EstimatorConfig, Kernel, LogitFilter, PlugInFirst, PlugInNewest

ESTIMATORS = {
    "plug_in_first": PlugIn(is_first=True),
    "plug_in_newest": PlugIn(is_first=False),
    "discounted_beta": Beta(0.5, 0.5),
    "skewed_beta": Beta(0.3, 4.0),
    "fitted_beta": Beta(is_fitted=True),
    "logit_filter": Gaussian(is_alone=True),
    "drift_filter": Gaussian(is_alone=False),
}
exponents = st.floats(0, 8)
counts = st.floats(0, 200)
priors = st.floats(0.05, 20)


def posterior(passed: float, failed: float) -> Columns:
    columns = Columns.zeros(1)
    columns.discounted_passed[0], columns.discounted_failed[0] = passed, failed
    return columns


def expected_weight(a: float, b: float, alpha: float, beta: float, passed: float = 0.0, failed: float = 0.0) -> float:
    kernel = Kernel(alpha=alpha, beta=beta)
    return float(Beta(a, b).expected_weight(posterior(passed, failed), kernel)[0])


def measured(groups: list[tuple[int, int]]) -> dict[str, float]:
    row: dict[str, float] = dict.fromkeys(NAMES, 0)
    for n_passed, n_counted in groups:
        row |= observed(row, n_passed, n_counted)
    return row


def columns_of(*problems: list[tuple[int, int]]) -> Columns:
    columns = Columns.zeros(len(problems))
    for place, groups in enumerate(problems):
        columns.put(place, measured(groups))
        believe(columns, place, groups)
    return columns


def believe(columns: Columns, place: int, groups: list[tuple[int, int]]) -> None:
    """Beliefs after the groups, all at one checkpoint, of a skill whose ability does not move."""
    one = Columns.zeros(1)
    still = Abilities(np.zeros(1), np.full(1, 1e-12), np.zeros(1, np.int64))
    for n_passed, n_counted in groups:
        k, n = np.array([float(n_passed)]), np.array([float(n_counted)])
        found, _ = observe(Beliefs.of(one), still, np.zeros(1, np.int64), k, n, 0)
        one.alone_mean, one.alone_variance = observe_alone(LoneBeliefs.of(one), k, n, 0)
        one.logit_mean, one.logit_variance, one.first_counted = found.mean, found.variance, np.array([n_counted])
    for name in ("logit_mean", "logit_variance", "alone_mean", "alone_variance"):
        getattr(columns, name)[place] = getattr(one, name)[0]


@pytest.mark.parametrize("a", [0.3, 0.5, 1.0, 8.5])
@pytest.mark.parametrize("b", [0.5, 2.0, 30.0])
@pytest.mark.parametrize(("alpha", "beta"), [(1, 1), (0, 0), (2, 0.5), (0.25, 3), (7, 7)])
def test_the_closed_form_is_the_integral(a: float, b: float, alpha: float, beta: float) -> None:

    def integral(alpha: float, beta: float) -> float:
        """Of p^α (1-p)^β times the density, but for its norm."""
        powers = (a - 1 + alpha, b - 1 + beta)
        return float(quad(lambda _: 1.0, 0, 1, weight="alg", wvar=powers, epsabs=0, epsrel=1e-12)[0])

    assert expected_weight(a, b, alpha, beta) == pytest.approx(integral(alpha, beta) / integral(0, 0), rel=1e-9)


@given(a=priors, b=priors, alpha=exponents, beta=exponents, passed=counts, failed=counts)
def test_it_lies_between_nothing_and_the_kernels_peak(
    a: float, b: float, alpha: float, beta: float, passed: float, failed: float
) -> None:
    found = expected_weight(a, b, alpha, beta, passed, failed)
    total = alpha + beta
    peak = alpha**alpha * beta**beta / total**total if total else 1.0
    assert 0.0 < found <= peak * (1 + 1e-9)


@given(a=priors, b=priors, alpha=exponents, beta=exponents)
def test_it_is_symmetric_in_right_and_wrong(a: float, b: float, alpha: float, beta: float) -> None:
    assert expected_weight(a, b, alpha, beta) == pytest.approx(expected_weight(b, a, beta, alpha), rel=1e-9)


@given(a=priors, b=priors, alpha=exponents, beta=exponents, more=st.floats(0.01, 4))
def test_a_larger_exponent_never_weighs_more(a: float, b: float, alpha: float, beta: float, more: float) -> None:
    found = expected_weight(a, b, alpha, beta)
    assert expected_weight(a, b, alpha + more, beta) <= found * (1 + 1e-9)
    assert expected_weight(a, b, alpha, beta + more) <= found * (1 + 1e-9)


@given(passed=counts, failed=counts)
def test_the_plain_kernel_has_its_well_known_form(passed: float, failed: float) -> None:
    a, b = 0.5 + passed, 0.5 + failed
    assert expected_weight(0.5, 0.5, 1, 1, passed, failed) == pytest.approx(a * b / ((a + b) * (a + b + 1)), rel=1e-9)


def test_the_plug_in_weights_of_eight_answers() -> None:
    columns = columns_of(*[[(k, 8)] for k in range(9)])
    found = PlugIn(is_first=False).expected_weight(columns, Kernel())
    assert found == pytest.approx([0, 0.109375, 0.1875, 0.234375, 0.25, 0.234375, 0.1875, 0.109375, 0])


@given(p=st.floats(0.01, 0.99), n=st.integers(1, 12))
def test_the_plug_in_weight_is_low_by_one_part_in_n(p: float, n: int) -> None:
    """E[p̂(1-p̂)] = (1-1/n) p(1-p) over binomial p̂ = k/n."""
    columns = columns_of(*[[(k, n)] for k in range(n + 1)])
    chances = np.array(
        [beta_function(k + 1, n - k + 1) ** -1 / (n + 1) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
    )
    mean = float(chances @ PlugIn(is_first=True).expected_weight(columns, Kernel()))
    assert mean == pytest.approx((1 - 1 / n) * p * (1 - p), rel=1e-9, abs=1e-12)


def test_a_zero_kernel_is_uniform_at_the_ends_too() -> None:
    assert weight(np.array([0.0, 0.5, 1.0]), Kernel(alpha=0, beta=0)).tolist() == [1.0, 1.0, 1.0]


@given(groups=st.lists(st.integers(0, 8), max_size=12), a0=priors, b0=priors)
def test_the_discounted_recursion_is_its_closed_form(groups: list[int], a0: float, b0: float) -> None:
    """a <- λa + (1-λ)a0 + k from a = a0 is a0 + Σ λ^(n-i) k_i, whatever the prior."""
    a, b = a0, b0
    for k in groups:
        a = DISCOUNT * a + (1 - DISCOUNT) * a0 + k
        b = DISCOUNT * b + (1 - DISCOUNT) * b0 + (8 - k)
    columns = columns_of([(k, 8) for k in groups])
    powers = DISCOUNT ** np.arange(len(groups))[::-1]
    assert columns.discounted_passed[0] == pytest.approx(float(powers @ np.array(groups, float)))
    assert a == pytest.approx(a0 + columns.discounted_passed[0], rel=1e-9)
    assert b == pytest.approx(b0 + columns.discounted_failed[0], rel=1e-9)
    assert Beta(a0, b0).pass_rate(columns)[0] == pytest.approx(a / (a + b), rel=1e-9)


def test_first_and_newest_groups_are_kept_apart() -> None:
    row = measured([(2, 8), (0, 0), (7, 8)])
    assert {name: value for name, value in row.items() if value} == {
        "first_passed": 2,
        "first_counted": 8,
        "last_passed": 7,
        "last_counted": 8,
        "discounted_passed": 8.0,
        "discounted_failed": 4.0,
    }


@pytest.mark.parametrize(
    ("config", "made"),
    [
        (PlugInFirst(), PlugIn(is_first=True)),
        (PlugInNewest(), PlugIn(is_first=False)),
        (DiscountedBeta(prior_a=0.3, prior_b=4.0), Beta(0.3, 4.0)),
        (LogitFilter(), Gaussian(is_alone=True)),
        (DriftFilter(), Gaussian(is_alone=False)),
    ],
)
def test_settings_name_estimators(config: EstimatorConfig, made: Estimator) -> None:
    assert make_estimator(config) == made


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@given(problems=st.lists(st.lists(st.integers(0, 8).map(lambda k: (k, 8)), max_size=4), max_size=6))
def test_the_contract_of_every_estimator(estimator: Estimator, problems: list[list[tuple[int, int]]]) -> None:
    columns = columns_of(*problems)
    n = len(problems)
    known = estimator.is_known(columns)
    p = estimator.pass_rate(columns)
    w = estimator.expected_weight(columns, Kernel(alpha=1.5, beta=0.5))
    low, high = estimator.interval(*estimator.posterior(columns))
    assert [array.shape for array in (known, p, w, low, high)] == [(n,)] * 5
    assert (known.dtype, p.dtype, w.dtype) == (np.bool_, np.float64, np.float64)
    assert all(known[i] for i, groups in enumerate(problems) if groups)
    assert np.array_equal(np.isnan(p), ~known)
    assert ((p[known] >= 0) & (p[known] <= 1)).all()
    assert np.isfinite(w).all()
    assert (w >= 0).all()
    assert (w[~known] == 0).all()
    assert ((low >= 0) & (low <= high) & (high <= 1)).all()
    one_by_one = [
        estimator.expected_weight(columns.take(np.array([i])), Kernel(alpha=1.5, beta=0.5))[0] for i in range(n)
    ]
    assert w.tolist() == pytest.approx(one_by_one), "a problem's weight depends on its own columns only"
