"""The drift and logit filters: logit p of each problem as a Gaussian, moved by its skill's problems or alone. Pure.

Each problem has a belief N(mean, variance) of its logit; each skill (a problem's first tag) has an ability that drifts
as the student trains. A measured group of n answers moves the ability of its skill by a Kalman step and the problem's
own belief by a Newton step, so that problems not measured since follow the student too. Beliefs move lazily: a belief
keeps the ability that it last saw, and the difference to today's is added when it is read.

The logit filter is the same without the ability: each problem learns from its own groups only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logsumexp

from app.flow.estimates.columns import BoolArray, Columns, FloatArray, IntArray

PRIOR_MEAN, PRIOR_VARIANCE = 0.0, 3.0  # of a problem never measured, before its skill's ability
ABILITY_VARIANCE = 1.0  # of a skill's ability before anything is seen of it
PROBLEM_DRIFT = 0.01  # variance that a checkpoint adds to a problem's own belief
ABILITY_DRIFT = 0.01  # and to a skill's ability
ALONE_DRIFT = 0.05  # to a problem known alone, for which all that the student learns is noise: 0.7 logits in ten
N_NEWTON, MAX_STEP = 6, 2.0
MIN_SLOPE = 1e-3  # of p by the logit: where the sigmoid is flat a group says nothing of the ability
NARROW = 0.8  # variance up to which the wider steps of `_COARSE` are as exact
Rule = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # nodes and weights


def _trapezoid(step: float, reach: float) -> Rule:
    """Nodes and weights of E[f(z)], z ~ N(0, 1).

    Of an integrand that is analytic in a strip, the trapezoidal rule errs by exp(-2π·width/step): the poles of the
    sigmoid lie at ±iπ, so that these steps give nine digits where Gauss-Hermite rules of the same size give three.
    """
    n = round(reach / step)
    nodes: FloatArray = np.arange(-n, n + 1, dtype=np.float64) * step
    weights = np.exp(-0.5 * nodes**2)
    return nodes, np.asarray(weights / weights.sum(), np.float64)


_FINE = _trapezoid(0.375, 7.5)
_COARSE = _trapezoid(0.6, 7.2)
_QUICK_FINE, _QUICK_COARSE = (
    (z.astype(np.float32), w.astype(np.float32)) for z, w in (_trapezoid(0.5, 7.2), _trapezoid(0.75, 7.2))
)


@dataclass(slots=True)
class Beliefs:
    """One entry a problem: N(mean, variance) of logit p at checkpoint `index`, and the ability seen then."""

    mean: FloatArray
    variance: FloatArray
    ability_seen: FloatArray
    index: IntArray

    @classmethod
    def of(cls, columns: Columns) -> "Beliefs":
        """Beliefs from columns; a problem without a counted group has the prior, and moves with its skill."""
        is_measured = columns.first_counted > 0
        return cls(
            mean=np.where(is_measured, columns.logit_mean, PRIOR_MEAN),
            variance=np.where(is_measured, columns.logit_variance, PRIOR_VARIANCE),
            ability_seen=np.where(is_measured, columns.ability_seen, 0.0),
            index=columns.belief_index,
        )

    def at(self, index: int | IntArray, ability: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(mean, variance) at a checkpoint, given each problem's ability by then."""
        n_passed = np.maximum(index - self.index, 0)
        return self.mean + ability - self.ability_seen, np.minimum(
            self.variance + PROBLEM_DRIFT * n_passed, PRIOR_VARIANCE
        )


@dataclass(slots=True)
class LoneBeliefs:
    """One entry a problem: N(mean, variance) of logit p at checkpoint `index`, from that problem's own groups."""

    mean: FloatArray
    variance: FloatArray
    index: IntArray

    @classmethod
    def of(cls, columns: Columns) -> "LoneBeliefs":
        """Beliefs from columns; a problem without a counted group has the prior."""
        is_measured = columns.first_counted > 0
        return cls(
            mean=np.where(is_measured, columns.alone_mean, PRIOR_MEAN),
            variance=np.where(is_measured, columns.alone_variance, PRIOR_VARIANCE),
            index=columns.belief_index,
        )

    def at(self, index: int | IntArray) -> tuple[FloatArray, FloatArray]:
        """(mean, variance) at a checkpoint."""
        n_passed = np.maximum(index - self.index, 0)
        return self.mean, np.minimum(self.variance + ALONE_DRIFT * n_passed, PRIOR_VARIANCE)


@dataclass(slots=True)
class Abilities:
    """One entry a skill: how far its problems moved since the start, the variance of that, and when it was seen."""

    level: FloatArray
    variance: FloatArray
    index: IntArray

    @classmethod
    def prior(cls, n: int) -> "Abilities":
        """Abilities of skills of which nothing was seen."""
        return cls(np.zeros(n), np.full(n, ABILITY_VARIANCE), np.zeros(n, np.int64))


def sigmoid_moments(mean: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """E[p], E[dp/dlogit] and Var[p] of Gaussian logits."""
    x, weights = _at_nodes(mean, variance, _FINE), _FINE[1]
    p = expit(x)
    mean_p = weights @ p
    return mean_p, weights @ (p * expit(-x)), np.maximum(weights @ (p * p) - mean_p**2, 0.0)


def weigh(mean: FloatArray, variance: FloatArray, alpha: float, beta: float) -> tuple[FloatArray, FloatArray]:
    """E[p] and E[p^alpha (1-p)^beta] of Gaussian logits, each to nine digits after the point."""

    def by(rows: BoolArray, rule: Rule) -> tuple[FloatArray, FloatArray]:
        return _weigh(mean[rows], variance[rows], alpha, beta, rule)

    return _by_width(variance, by, _COARSE, _FINE)


def weigh_quickly(mean: FloatArray, variance: FloatArray, alpha: float, beta: float) -> tuple[FloatArray, FloatArray]:
    """The same to six digits after the point, in single precision and a fifth of the time: for draws."""

    def by(rows: BoolArray, rule: Rule) -> tuple[FloatArray, FloatArray]:
        return _weigh_quickly(mean[rows].astype(np.float32), variance[rows].astype(np.float32), alpha, beta, rule)

    return _by_width(variance, by, _QUICK_COARSE, _QUICK_FINE)


def binomial_mixture(
    mean: FloatArray, variance: FloatArray, n_passed: FloatArray, n_counted: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Log of E[p^k (1-p)^(n-k)], and E[p], of Gaussian logits."""
    x, weights = _at_nodes(mean, variance, _FINE), _FINE[1]
    exponent = -n_passed * np.logaddexp(0.0, -x) - (n_counted - n_passed) * np.logaddexp(0.0, x)
    log_p: FloatArray = logsumexp(exponent, axis=0, b=weights[:, None])
    return log_p, weights @ expit(x)


def quantile(mean: FloatArray, variance: FloatArray, z: float) -> FloatArray:
    """The quantile of p at z standard deviations of the logit."""
    found: FloatArray = expit(mean + z * np.sqrt(variance))
    return found


def observe(
    beliefs: Beliefs, abilities: Abilities, skills: IntArray, n_passed: FloatArray, n_counted: FloatArray, index: int
) -> tuple[Beliefs, Abilities]:
    """Beliefs and abilities after one group each of distinct problems, all answered by checkpoint `index`.

    `skills` names each problem's ability; the abilities are those of the skills that occur, all measured at once:
    reports of any size give nearly the same as one large one.
    """
    waited = np.maximum(index - abilities.index, 0)
    before = abilities.variance + ABILITY_DRIFT * waited
    mean, variance = beliefs.at(index, abilities.level[skills])
    p, slope, spread = sigmoid_moments(mean, variance)
    slope = np.maximum(slope, MIN_SLOPE)
    surprise = (n_passed / n_counted - p) / slope
    noise = (p * (1 - p) / n_counted + spread * (1 - 1 / n_counted)) / slope**2
    information = np.bincount(skills, 1 / noise, minlength=len(before))
    after = before / (1 + before * information)
    moved = after * np.bincount(skills, surprise / noise, minlength=len(before))
    level = abilities.level + moved
    mean, variance = _newton(mean + moved[skills], variance, n_passed, n_counted)
    seen = np.maximum(beliefs.index, index)
    return (
        Beliefs(mean, variance, level[skills], seen),
        Abilities(level, after, np.maximum(abilities.index, index)),
    )


def observe_alone(
    beliefs: LoneBeliefs, n_passed: FloatArray, n_counted: FloatArray, index: int
) -> tuple[FloatArray, FloatArray]:
    """(mean, variance) of the logit filter after one group each of distinct problems, answered by checkpoint `index`.

    The checkpoint that they stand for is then that of the drift filter's beliefs, the later of the two.
    """
    return _newton(*beliefs.at(index), n_passed, n_counted)


def _newton(
    mean: FloatArray, variance: FloatArray, n_passed: FloatArray, n_counted: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Mode and curvature of the binomial likelihood times N(mean, variance)."""
    x = mean.copy()
    for _ in range(N_NEWTON):
        p = expit(x)
        gradient = n_passed - n_counted * p - (x - mean) / variance
        x = x + np.clip(gradient / (n_counted * p * (1 - p) + 1 / variance), -MAX_STEP, MAX_STEP)
    p = expit(x)
    return x, 1 / (n_counted * p * (1 - p) + 1 / variance)


def _weigh(
    mean: FloatArray, variance: FloatArray, alpha: float, beta: float, rule: Rule
) -> tuple[FloatArray, FloatArray]:
    x = _at_nodes(mean, variance, rule)
    p = expit(x)
    if alpha == beta == 1.0:  # the default kernel, and most of a draw's time
        return rule[1] @ p, rule[1] @ (p * (1.0 - p))
    # log p = -log(1 + e^-x) without overflow, so that high exponents keep their small values
    w = np.exp(-alpha * np.logaddexp(0.0, -x) - beta * np.logaddexp(0.0, x))
    return rule[1] @ p, rule[1] @ w


def _weigh_quickly(
    mean: npt.NDArray[np.float32], variance: npt.NDArray[np.float32], alpha: float, beta: float, rule: Rule
) -> tuple[FloatArray, FloatArray]:
    weights = rule[1]
    if alpha == beta == 1.0:  # the default kernel: with t = tanh(x/2), p = (1+t)/2 and p(1-p) = (1-t²)/4
        t = _at_nodes(mean / 2, variance / 4, rule)
        np.tanh(t, out=t)  # in place: a new array of this size costs more than what is computed
        mean_t = weights @ t
        np.square(t, out=t)
        return 0.5 + mean_t / 2, np.maximum(0.25 - weights @ t / 4, 0.0)
    x = _at_nodes(mean, variance, rule)
    e = np.exp(-np.abs(x))
    larger = 1.0 / (1.0 + e)  # p and 1-p are this, and this times e
    p = np.where(x >= 0.0, larger, e * larger)
    log_larger = -np.log1p(e)
    log_p, log_q = np.minimum(x, 0.0) + log_larger, np.minimum(-x, 0.0) + log_larger
    return weights @ p, weights @ np.exp(np.float32(alpha) * log_p + np.float32(beta) * log_q)


def _by_width(
    variance: FloatArray, by: Callable[[BoolArray, Rule], tuple[FloatArray, FloatArray]], narrow: Rule, wide: Rule
) -> tuple[FloatArray, FloatArray]:
    """Narrow beliefs by one rule, wide ones by another."""
    is_narrow = np.asarray(variance <= NARROW)
    p, w = np.empty(len(variance)), np.empty(len(variance))
    for rows, rule in ((is_narrow, narrow), (~is_narrow, wide)):
        p[rows], w[rows] = by(rows, rule)
    return p, w


def _at_nodes(mean: npt.NDArray[Any], variance: npt.NDArray[Any], rule: Rule) -> npt.NDArray[Any]:
    """Logits; (nodes, rows)."""
    nodes: npt.NDArray[Any] = rule[0][:, None] * np.sqrt(variance)
    nodes += mean
    return nodes
