"""From posterior columns to E[w]: estimators are small objects with the same methods. Pure.

w(p) = p^α (1-p)^β. A Beta(a, b) posterior gives E[w] = B(a+α, b+β) / B(a, b).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import betaincinv, betaln, expit, ndtri

from app.flow.estimates.columns import UNFITTED, BoolArray, Columns, FloatArray, fitted_prior
from app.flow.estimates.filters import Beliefs, LoneBeliefs, quantile, weigh, weigh_quickly
from paced.wire import DiscountedBeta, DriftFilter, EstimatorConfig, Kernel, LogitFilter, PlugInFirst, PlugInNewest

MASS = 0.9  # of the central interval shown with each estimate
HARD_FILTER = (0.2, 0.8)  # the band that trainers without weights draw from, its ends left out
FRONTIER = (0.1, 0.9)  # pass rates at which a student sometimes succeeds and sometimes fails
Z = float(ndtri(1 - (1 - MASS) / 2))


class Estimator(Protocol):
    """What draws and explanations ask of an estimator; arrays are aligned with the columns."""

    def is_known(self, columns: Columns) -> BoolArray:
        """Problems that may be drawn: an estimate exists."""
        ...

    def pass_rate(self, columns: Columns) -> FloatArray:
        """Point estimate of p, NaN where nothing is known."""
        ...

    def expected_weight(self, columns: Columns, kernel: Kernel) -> FloatArray:
        """E[w(p)], 0 where nothing is known."""
        ...

    def weigh(self, columns: Columns, kernel: Kernel) -> tuple[FloatArray, FloatArray]:
        """Both of them at once, to six digits, as a draw asks for them."""
        ...

    def sampled_weight(self, columns: Columns, kernel: Kernel, rng: np.random.Generator) -> FloatArray:
        """W of a pass rate drawn from the posterior (Thompson sampling)."""
        ...

    @property
    def names(self) -> tuple[str, str]:
        """What the two numbers of `posterior` are."""
        ...

    def posterior(self, columns: Columns) -> tuple[FloatArray, FloatArray]:
        """The two numbers that say all of what is believed of a problem."""
        ...

    def interval(self, first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Central 90 % interval of p, from those two."""
        ...


def weight(p: FloatArray, kernel: Kernel) -> FloatArray:
    """w(p) = p^α (1-p)^β, with 0^0 = 1: a zero exponent is uniform even at p = 0 and 1."""
    w: FloatArray = np.power(p, kernel.alpha) * np.power(1.0 - p, kernel.beta)
    return w


def is_settled(pass_rate: FloatArray) -> BoolArray:
    """True where the student always or never solves a problem, as far as is known."""
    return np.asarray((pass_rate <= FRONTIER[0]) | (pass_rate >= FRONTIER[1]))


def is_inside(pass_rate: FloatArray) -> BoolArray:
    """Inside the hard filter; False where nothing is known."""
    return np.asarray((pass_rate > HARD_FILTER[0]) & (pass_rate < HARD_FILTER[1]))


@dataclass(frozen=True, slots=True)
class PlugIn:
    """p = k/n of one group, the first (the paper's, measured once) or the newest."""

    is_first: bool

    @property
    def names(self) -> tuple[str, str]:
        """See `posterior`."""
        return "n_passed", "n_counted"

    def posterior(self, columns: Columns) -> tuple[FloatArray, FloatArray]:
        """The group."""
        if self.is_first:
            return columns.first_passed.astype(float), columns.first_counted.astype(float)
        return columns.last_passed.astype(float), columns.last_counted.astype(float)

    def is_known(self, columns: Columns) -> BoolArray:
        """Measured at least once."""
        return np.asarray(self.posterior(columns)[1] > 0)

    def pass_rate(self, columns: Columns) -> FloatArray:
        """k/n."""
        k, n = self.posterior(columns)
        p: FloatArray = np.divide(k, n, out=np.full(len(columns), np.nan), where=n > 0)
        return p

    def expected_weight(self, columns: Columns, kernel: Kernel) -> FloatArray:
        """w(k/n): no uncertainty is kept, so 0/n and n/n weigh nothing."""
        p = self.pass_rate(columns)
        return np.where(np.isnan(p), 0.0, weight(np.nan_to_num(p), kernel))

    def weigh(self, columns: Columns, kernel: Kernel) -> tuple[FloatArray, FloatArray]:
        """k/n and w(k/n)."""
        return self.pass_rate(columns), self.expected_weight(columns, kernel)

    def sampled_weight(self, columns: Columns, kernel: Kernel, rng: np.random.Generator) -> FloatArray:
        """w(k/n), with ties broken by chance: there is no posterior to draw from."""
        return self.expected_weight(columns, kernel) * (1.0 - 1e-9 * rng.random(len(columns)))

    def interval(self, first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Jeffreys interval of the group."""
        return _beta_interval(0.5 + first, 0.5 + second - first)


@dataclass(frozen=True, slots=True)
class Beta:
    """Discounted Beta posterior; problems never measured have the prior, and may be drawn.

    With `is_fitted`, the prior given is replaced by one of each skill, fitted to its uniformly chosen groups.
    """

    prior_a: float = UNFITTED
    prior_b: float = UNFITTED
    is_fitted: bool = False

    @property
    def names(self) -> tuple[str, str]:
        """See `posterior`."""
        return "a", "b"

    def posterior(self, columns: Columns) -> tuple[FloatArray, FloatArray]:
        """Beta(a, b)."""
        passed, failed = columns.discounted_passed, columns.discounted_failed
        if not self.is_fitted:
            return self.prior_a + passed, self.prior_b + failed
        a, b = fitted_prior(columns.audits)
        return a[columns.skill] + passed, b[columns.skill] + failed

    def is_known(self, columns: Columns) -> BoolArray:
        """Every problem has at least the prior."""
        return np.ones(len(columns), np.bool_)

    def pass_rate(self, columns: Columns) -> FloatArray:
        """Posterior mean."""
        a, b = self.posterior(columns)
        return a / (a + b)

    def expected_weight(self, columns: Columns, kernel: Kernel) -> FloatArray:
        """E[w] in closed form."""
        a, b = self.posterior(columns)
        if kernel.alpha == kernel.beta == 1.0:  # the default kernel, and most of a draw's time
            return a * b / ((a + b) * (a + b + 1.0))
        w: FloatArray = np.exp(betaln(a + kernel.alpha, b + kernel.beta) - betaln(a, b))
        return w

    def weigh(self, columns: Columns, kernel: Kernel) -> tuple[FloatArray, FloatArray]:
        """Posterior mean and E[w]."""
        return self.pass_rate(columns), self.expected_weight(columns, kernel)

    def sampled_weight(self, columns: Columns, kernel: Kernel, rng: np.random.Generator) -> FloatArray:
        """W of a draw from each Beta."""
        return weight(rng.beta(*self.posterior(columns)), kernel)

    def interval(self, first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Posterior quantiles."""
        return _beta_interval(first, second)


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Gaussian belief of logit p (filters.py), moved by all problems of its skill or by its own groups alone."""

    is_alone: bool

    @property
    def names(self) -> tuple[str, str]:
        """See `posterior`."""
        return "logit_mean", "logit_variance"

    def posterior(self, columns: Columns) -> tuple[FloatArray, FloatArray]:
        """N(mean, variance) of logit p, now."""
        if self.is_alone:
            return LoneBeliefs.of(columns).at(columns.now_index)
        return Beliefs.of(columns).at(columns.now_index, columns.ability)

    def is_known(self, columns: Columns) -> BoolArray:
        """Every problem has at least the prior."""
        return np.ones(len(columns), np.bool_)

    def pass_rate(self, columns: Columns) -> FloatArray:
        """E[p]."""
        return weigh(*self.posterior(columns), 0.0, 0.0)[0]

    def expected_weight(self, columns: Columns, kernel: Kernel) -> FloatArray:
        """E[w] by quadrature."""
        return weigh(*self.posterior(columns), kernel.alpha, kernel.beta)[1]

    def weigh(self, columns: Columns, kernel: Kernel) -> tuple[FloatArray, FloatArray]:
        """E[p] and E[w], from the same nodes, in single precision."""
        return weigh_quickly(*self.posterior(columns), kernel.alpha, kernel.beta)

    def sampled_weight(self, columns: Columns, kernel: Kernel, rng: np.random.Generator) -> FloatArray:
        """W of a draw from each Gaussian."""
        mean, variance = self.posterior(columns)
        return weight(expit(rng.normal(mean, np.sqrt(variance))), kernel)

    def interval(self, first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Quantiles of the belief."""
        return quantile(first, second, -Z), quantile(first, second, Z)


def make_estimator(config: EstimatorConfig) -> Estimator:
    """The estimator that a curriculum's setting names."""
    match config:
        case PlugInFirst():
            return PlugIn(is_first=True)
        case PlugInNewest():
            return PlugIn(is_first=False)
        case DiscountedBeta(prior_a=None, prior_b=None):
            return Beta(is_fitted=True)
        case DiscountedBeta():
            return Beta(config.prior_a or UNFITTED, config.prior_b or UNFITTED)
        case DriftFilter():
            return Gaussian(is_alone=False)
        case LogitFilter():
            return Gaussian(is_alone=True)


def _beta_interval(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    tail = (1.0 - MASS) / 2
    return betaincinv(a, b, tail), betaincinv(a, b, 1.0 - tail)
