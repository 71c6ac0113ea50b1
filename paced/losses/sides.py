"""The two sides of a comparison, which give logits [C, V] of some tokens when they are asked: float32, or float64.

A matrix product in float32 puts an error of about 1e-6 on a logit. Probabilities carry it on, and the gradient
`p_s − p_t` is a difference of them: with two models that agree roughly, it is off by three times as much. Nearly all of
that lies on the few likeliest tokens, so their logits are computed once more, in float64, and the maximum is subtracted
before they are rounded.
"""

# Dimension suffixes are capitals: C or R tokens, V vocabulary, K tokens of it, H width.
# ruff: noqa: N803, N806, N815

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

NEVER = -1e30  # a log-probability whose exp is 0, and whose products are finite


class Side(Protocol):
    """What the comparison asks of a side; `soft_cap` is applied by the caller."""

    @property
    def soft_cap(self) -> float | None:
        """The bound of `soft_cap · tanh(logits / soft_cap)`, as in Gemma 2."""

    @property
    def is_refined(self) -> bool:
        """Whether the likeliest tokens' logits are worth computing again."""

    def raw_logits(self, rows_C: Tensor, dtype: torch.dtype) -> Tensor:
        """Logits [C, V] of some tokens, the caller's to overwrite."""

    def exact_logits(self, rows_R: Tensor, ids_R_K: Tensor) -> Tensor:
        """Some tokens' logits of some words of the vocabulary [R, K], in float64."""


@dataclass(frozen=True)
class Projection:
    """Logits that are not multiplied out: hidden states [..., H], and a head of weight [V, H] and bias [V].

    With `soft_cap` the logits are `soft_cap · tanh(logits / soft_cap)`, as in Gemma 2. On a GPU, give hidden states
    and weight both in bfloat16 to use tensor cores: the product is still float32. Other mixtures are widened first.
    """

    hidden: Tensor
    weight_V_H: Tensor
    bias_V: Tensor | None = None
    soft_cap: float | None = None

    @property
    def is_refined(self) -> bool:
        """Whether operands are float32; products of bfloat16 are exact, and float64 needs no help."""
        return self.weight_V_H.dtype is torch.float32

    def prepared(self, n_vocabulary: int, dtype: torch.dtype) -> "Projection":
        """The same, detached, flat, cut to the vocabulary, in the types it is multiplied in."""
        hidden_N_H, weight_V_H = self.hidden.detach().flatten(0, -2), self.weight_V_H.detach()[:n_vocabulary]
        is_tensor_core = hidden_N_H.is_cuda and hidden_N_H.dtype is weight_V_H.dtype is torch.bfloat16
        operand = torch.bfloat16 if is_tensor_core else dtype  # float16 would lose small gradients
        bias_V = None if self.bias_V is None else self.bias_V.detach()[:n_vocabulary].to(dtype)
        return replace(self, hidden=hidden_N_H.to(operand), weight_V_H=weight_V_H.to(operand), bias_V=bias_V)

    def raw_logits(self, rows_C: Tensor, dtype: torch.dtype) -> Tensor:
        """Logits [C, V] of some tokens of a prepared projection, without the cap."""
        logits_C_V = product(self.hidden[rows_C], self.weight_V_H.T, dtype)
        return logits_C_V if self.bias_V is None else logits_C_V.add_(self.bias_V)

    def exact_logits(self, rows_R: Tensor, ids_R_K: Tensor) -> Tensor:
        """Some of these logits [R, K] once more, in float64."""
        hidden_R_H_1 = self.hidden[rows_R].double()[:, :, None]
        logits_R_K = torch.bmm(self.weight_V_H[ids_R_K].double(), hidden_R_H_1).squeeze(-1)
        return logits_R_K if self.bias_V is None else logits_R_K.add_(self.bias_V[ids_R_K])


@dataclass(frozen=True)
class TeacherLogits:
    """A teacher whose logits [..., V] are there already, or their log-probabilities; −inf rules a token out."""

    logits: Tensor

    soft_cap: ClassVar[None] = None
    is_refined: ClassVar[bool] = False

    def prepared(self, n_vocabulary: int, dtype: torch.dtype) -> "TeacherLogits":  # noqa: ARG002  # as Projection's
        """The same, detached, flat, cut to the vocabulary."""
        return TeacherLogits(self.logits.detach().flatten(0, -2)[:, :n_vocabulary])

    def raw_logits(self, rows_C: Tensor, dtype: torch.dtype) -> Tensor:
        """Logits [C, V] of some tokens, a copy."""
        return self.logits[rows_C].to(dtype).clamp_min_(NEVER)

    def exact_logits(self, rows_R: Tensor, ids_R_K: Tensor) -> Tensor:
        """Some of them [R, K], in float64."""
        return self.logits[rows_R[:, None], ids_R_K].double().clamp_min_(NEVER)


def product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Multiply with a result in `dtype`: bfloat16 logits would put up to 20 % of error on a token's KL."""
    return a @ b if a.dtype is dtype else torch.mm(a, b, out_dtype=dtype)


def likeliest(n_words: int, logits_R_V: Tensor, *others: Tensor) -> Tensor:
    """The ids [R, K] of the words nearest to the greatest logit, by any of the sides."""
    nearness_R_V = logits_R_V - logits_R_V.amax(-1, keepdim=True)
    for other_R_V in others:
        torch.maximum(nearness_R_V, other_R_V - other_R_V.amax(-1, keepdim=True), out=nearness_R_V)
    return nearness_R_V.topk(min(n_words, nearness_R_V.shape[-1]), sorted=False).indices


def cap_slope(side: Side, raw_logits_R_V: Tensor) -> Tensor | None:
    """The derivative [R, V] of the soft cap, None without one."""
    if side.soft_cap is None:
        return None
    return (raw_logits_R_V / side.soft_cap).cosh_().square_().reciprocal_()  # 1 − tanh² would cancel near the cap


def tempered_(side: Side, rows_R: Tensor, z_R_V: Tensor, ids_R_K: Tensor | None, temperature: float) -> Tensor:
    """Turn raw logits, in place, into capped ones over the temperature with maximum 0; those of the ids exactly."""
    shift_R_1 = _scaled_(z_R_V, side.soft_cap, temperature).amax(-1, keepdim=True)
    z_R_V -= shift_R_1
    if ids_R_K is not None:
        exact_R_K = _scaled_(side.exact_logits(rows_R, ids_R_K), side.soft_cap, temperature)
        z_R_V.scatter_(-1, ids_R_K, exact_R_K.sub_(shift_R_1).to(z_R_V.dtype))
    return z_R_V


def _scaled_(logits: Tensor, soft_cap: float | None, temperature: float) -> Tensor:
    if soft_cap is not None:
        logits.div_(soft_cap).tanh_().mul_(soft_cap)
    return logits if temperature == 1 else logits.div_(temperature)


def log_normalised_(logits_R_V: Tensor) -> Tensor:
    """Subtract the logarithm of Σ exp, in place; torch's own adds in a row on the CPU, off by 1e-5 at V = 151,936."""
    logits_R_V -= logits_R_V.exp().sum(-1, keepdim=True).log_()
    return logits_R_V
