"""From E[w] to draw weights and loss weights: the weight acts once, in the draw or in the loss. Pure.

`sample`:   P_i ∝ E[w_i]^γ, and loss_weight_i = (w_i/Σw) / P_i, so that the expected loss is w-weighted
            whatever γ is; clipped above, since a rare draw would carry a large factor.
`reweight`: uniform draw, loss_weight_i = w_i / mean(w), as in the paper.
"""

from dataclasses import dataclass

import numpy as np

from app.flow.curricula.rule import Rule
from app.flow.estimates.columns import BoolArray, Columns, FloatArray
from app.flow.estimates.estimators import make_estimator
from paced.wire import Mode


@dataclass(frozen=True, slots=True)
class Weighting:
    """Aligned with the problems: estimate, E[w], chance of the first draw, loss weight (0 where not eligible)."""

    pass_rate: FloatArray
    weight: FloatArray
    draw_probability: FloatArray
    loss_weight: FloatArray
    is_known: BoolArray


def weighting(rule: Rule, columns: Columns, is_allowed: BoolArray) -> Weighting:
    """Weights of all problems under a rule; only allowed ones get a chance."""
    estimator = make_estimator(rule.estimator)
    is_known = estimator.is_known(columns)
    w = estimator.expected_weight(columns, rule.kernel)
    is_open = is_allowed & is_known
    w_open = np.where(is_open, w, 0.0)
    if w_open.sum() <= 0.0:
        nothing = np.zeros(len(columns))
        return Weighting(estimator.pass_rate(columns), w, nothing, nothing, is_known)
    if rule.mode == Mode.REWEIGHT:
        q = is_open / is_open.sum()
        factor = w_open / w_open[is_open].mean()
    else:
        # relative to the largest weight, so that a high power cannot underflow to all zeros
        power = np.where(w_open > 0.0, (w_open / w_open.max()) ** rule.gamma, 0.0)
        q = power / power.sum()
        target = w_open / w_open.sum()
        factor = np.divide(target, q, out=np.zeros_like(q), where=q > 0.0)
    return Weighting(estimator.pass_rate(columns), w, q, np.minimum(factor, rule.loss_weight_clip), is_known)
