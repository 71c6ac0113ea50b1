"""From E[w] to draw weights and loss weights: the weight acts once, in the draw or in the loss. Pure.

`sample`:   P_i ∝ E[w_i]^γ, and loss_weight_i = (w_i/Σw) / P_i, so that the expected loss is w-weighted
            whatever γ is; clipped above, since a rare draw would carry a large factor.
`reweight`: uniform draw, loss_weight_i = w_i / mean(w), as in the paper.
`retest_share` of the chance goes to problems that the student always or never solves, evenly: they train next to
nothing (their loss weight stays small), but a trainer that reports outcomes sees when one comes back.
"""

from dataclasses import dataclass

import numpy as np

from app.flow.curricula.rule import Rule
from app.flow.estimates.columns import BoolArray, FloatArray
from paced.wire import Kernel, Mode


@dataclass(frozen=True, slots=True)
class Totals:
    """Over all problems that may be drawn: weight, power, and how many (`n_settled`: off the frontier)."""

    w: float
    power: float
    n: float
    n_settled: float

    @classmethod
    def of(cls, w: FloatArray, power: FloatArray, is_settled: BoolArray) -> "Totals":
        """Sums over open problems."""
        return cls(float(w.sum()), float(power.sum()), len(w), float(is_settled.sum()))


def peak(kernel: Kernel) -> float:
    """The largest w(p): α^α β^β / (α+β)^(α+β)."""
    a, b = kernel.alpha, kernel.beta
    return float(a**a * b**b / (a + b) ** (a + b)) if a + b else 1.0


def power(rule: Rule, w: FloatArray, largest: float) -> FloatArray:
    """(E[w] / largest)^γ where the weight acts in the draw, 1 where it acts in the loss; 0 of no weight stays 0."""
    if rule.mode == Mode.REWEIGHT:
        return np.ones(len(w))
    # relative to the largest, so that a high power cannot underflow to all zeros
    powered: FloatArray = np.where(w > 0.0, np.minimum(w / largest, 1.0) ** rule.gamma, 0.0)
    return powered


def retest_bonus(rule: Rule, totals: Totals) -> float:
    """What to add to the power of each settled problem so that together they get `retest_share` of the chance."""
    share = rule.retest_share if rule.mode == Mode.SAMPLE else 0.0
    if share == 0.0 or totals.n_settled == 0.0:
        return 0.0
    return share / (1.0 - share) * totals.power / totals.n_settled if totals.power > 0.0 else 1.0


def loss_weights(rule: Rule, w: FloatArray, draw_probability: FloatArray, totals: Totals) -> FloatArray:
    """Factors of the losses of drawn problems, clipped above; 1 where no weight is left to speak of."""
    if totals.w <= 0.0:
        return np.ones(len(w))
    factor = w / totals.w / draw_probability if rule.mode == Mode.SAMPLE else w / (totals.w / totals.n)
    return np.minimum(factor, rule.loss_weight_clip)
