"""Exact, weighted distillation losses for any trainer: torch, and nothing else of this package.

`distillation_loss` compares a student's distributions with a teacher's, chunk by chunk, and weighs sequences.
`step_denominator` gives the D that it divides by; `weighted_kl` is the loss of tokens with coefficients of your own.
"""

from paced.losses.chunked import LossMetrics, distillation_loss, weighted_kl
from paced.losses.divergences import DIVERGENCES, KLSettings
from paced.losses.reductions import Reduction, sequence_coefficients, step_denominator
from paced.losses.sides import Projection, TeacherLogits
from paced.losses.sparse import TopK

__all__ = [
    "DIVERGENCES",
    "KLSettings",
    "LossMetrics",
    "Projection",
    "Reduction",
    "TeacherLogits",
    "TopK",
    "distillation_loss",
    "sequence_coefficients",
    "step_denominator",
    "weighted_kl",
]
