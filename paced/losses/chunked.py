"""Weighted distillation losses over the whole vocabulary, computed from hidden states chunk by chunk.

A few tokens at a time are projected onto the vocabulary, compared by a divergence, and turned into gradients of the
student's hidden states and head by its closed form, so the full logits [N, V] never exist, neither forward nor
backward. With temperature τ both logits are divided by τ. No τ² factor is applied: multiply the loss by τ² for the
convention of Hinton et al. (2015).

Dimension suffixes: B sequences, T positions, N = B·T tokens, C tokens of one chunk, R of them compared at a time, V
vocabulary, H width (the student's and the teacher's may differ), K listed or likeliest tokens.
"""

# The suffixes above are capitals:
# ruff: noqa: N803, N806, N815

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from paced.losses.checks import Teacher, check_shapes, n_words, shared_vocabulary
from paced.losses.divergences import KLSettings
from paced.losses.reductions import Reduction, sequence_coefficients
from paced.losses.sides import Projection, cap_slope, likeliest, log_normalised_, product, tempered_
from paced.losses.sparse import TopK, check_top_k, compare_top_k

Gradients = tuple[Tensor | None, ...]  # of hidden states, weight and bias

ROWS_COMPARED = {"cpu": 16, "cuda": 256}  # a processor's cache wants few rows at a time, a GPU's launches many
N_REFINED = 24  # likeliest words whose logits are refined; with none the gradient is off by 3e-6, with 24 by 6e-7
VOCABULARY_TILE = 8_192  # words that a product sums over: over all of V its rounding errors would add up


@dataclass(frozen=True)
class LossMetrics:
    """What a loss was made of, detached: the divergence in nats per token, over the tokens that were scored.

    `kl_B` [B] is each sequence's mean, nan where none of its tokens was scored (weight 0, or all masked);
    `kl_token_mean` [] is the mean over all tokens, whatever their weight, nan if there was none; `n_tokens` [] counts.
    """

    kl_B: Tensor
    kl_token_mean: Tensor
    n_tokens: Tensor


@torch.compiler.disable  # type: ignore[untyped-decorator]  # a compiled step calls this as it is
def weighted_kl(
    student: Projection, teacher: Teacher, coefficient: Tensor, settings: KLSettings | None = None
) -> tuple[Tensor, Tensor]:
    """Return the exact loss `Σ coefficient · KL` [] and each token's KL [...], detached.

    KL is the divergence that the settings name. `coefficient` has the hidden states' leading shape [...] and is a
    constant. Tokens whose coefficient is 0 are not projected at all; their KL reads 0. The loss is differentiable in
    the student's hidden states, weight and bias; the teacher is a constant, even where it shares the student's tensors.
    float64 hidden states are compared in float64, all others in float32, autocast or not; gradients add up in that
    precision and are rounded to their tensor's once. They are made in the forward pass and given away by the backward:
    a second one raises RuntimeError.

    Raises ValueError on mismatched shapes, on a coefficient that requires grad, on vocabularies that differ, and on
    what a sparse teacher cannot mean.
    """
    settings = settings or KLSettings()
    check_shapes(student, teacher, coefficient)
    if isinstance(teacher, TopK):
        check_top_k(teacher, settings, coefficient.shape)
    n_vocabulary = shared_vocabulary(student.weight_V_H.shape[0], n_words(teacher), settings.vocab_size)
    inputs: list[Tensor | None] = [student.hidden.flatten(0, -2), student.weight_V_H, student.bias_V]
    if not torch.is_grad_enabled():  # which Function.forward cannot see
        inputs = [None if x is None else x.detach() for x in inputs]
    with torch.autocast(student.hidden.device.type, enabled=False):
        loss, kl_N = _WeightedKL.apply(  # type: ignore[no-untyped-call]  # torch leaves it bare
            *inputs, student.soft_cap, teacher, coefficient.flatten(), replace(settings, vocab_size=n_vocabulary)
        )
    return loss, kl_N.view(coefficient.shape)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def distillation_loss(
    student: Projection,
    teacher: Teacher,
    mask_B_T: Tensor,
    weights_B: Tensor,
    *,
    denominator: float,
    reduction: Reduction = "seq_mean",
    settings: KLSettings | None = None,
) -> tuple[Tensor, LossMetrics]:
    """Return the loss [] of B weighted sequences, `Σ_i w_i · mean_t KL_{i,t} / D` by default, and its metrics.

    Hidden states, teacher's logits or ids are [B, T, ·], aligned with `mask_B_T`: position t is the one that predicts
    a token to score. See `sequence_coefficients` for weights and reduction, `step_denominator` for D, `weighted_kl` for
    precision, and all three for errors.
    """
    coefficient_B_T = sequence_coefficients(mask_B_T, weights_B, reduction, denominator=denominator)
    loss, kl_B_T = weighted_kl(student, teacher, coefficient_B_T, settings)
    n_tokens_B = (coefficient_B_T != 0).sum(-1)
    return loss, LossMetrics(
        kl_B=kl_B_T.sum(-1) / n_tokens_B,
        kl_token_mean=kl_B_T.sum() / n_tokens_B.sum(),
        n_tokens=n_tokens_B.sum(),
    )


class _WeightedKL(torch.autograd.Function):
    """`weighted_kl` on flat tokens [N]; the gradients are made in forward, and backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_N_H: Tensor,
        weight_V_H: Tensor,
        bias_V: Tensor | None,
        soft_cap: float | None,
        teacher: Teacher,
        coefficient_N: Tensor,
        settings: KLSettings,
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.float64 if hidden_N_H.dtype is torch.float64 else torch.float32
        n_vocabulary = settings.vocab_size or len(weight_V_H)
        coefficient_N = coefficient_N.to(dtype)
        kl_N = torch.zeros_like(coefficient_N)
        student = Projection(hidden_N_H, weight_V_H, bias_V, soft_cap).prepared(n_vocabulary, dtype)
        if isinstance(teacher, TopK):
            teacher = teacher.prepared(n_vocabulary, coefficient_N != 0)
        else:
            teacher = teacher.prepared(n_vocabulary, dtype)
        inputs = (hidden_N_H, weight_V_H, bias_V)
        ctx.dtypes = tuple(None if x is None else x.dtype for x in inputs)
        ctx.grads = tuple(
            torch.zeros_like(x, dtype=dtype) if x is not None and needed else None
            for x, needed in zip(inputs, ctx.needs_input_grad[:3], strict=True)
        )
        for rows_C in torch.split(coefficient_N.nonzero().squeeze(-1), settings.chunk_size):
            kl_N[rows_C] = _score(student, teacher, rows_C, coefficient_N[rows_C], settings, ctx.grads)
        ctx.mark_non_differentiable(kl_N)
        return (coefficient_N * kl_N).sum(), kl_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _grad_kl_N: Tensor) -> Gradients:
        if ctx.grads is None:
            raise RuntimeError("the first backward took this loss's gradients: compute the loss again for a second one")
        # Kept nowhere else and scaled in place, so that autograd adopts them instead of copying [V, H].
        grads, ctx.grads = ctx.grads, None
        scaled = (None if g is None else g.mul_(grad_loss).to(t) for g, t in zip(grads, ctx.dtypes, strict=True))
        return (*scaled, None, None, None, None)


def _score(
    student: Projection,
    teacher: Teacher,
    rows_C: Tensor,
    coefficient_C: Tensor,
    settings: KLSettings,
    grads: Gradients,
) -> Tensor:
    """Return the KL [C] of one chunk's tokens, and add their gradients to `grads`."""
    zs_C_V = student.raw_logits(rows_C, coefficient_C.dtype)
    zt_C_V = zs_C_V[:, :0] if isinstance(teacher, TopK) else teacher.raw_logits(rows_C, coefficient_C.dtype)
    kl_C = torch.empty_like(coefficient_C)
    n_rows = ROWS_COMPARED.get(rows_C.device.type, ROWS_COMPARED["cuda"])
    pieces = (torch.split(x, n_rows) for x in (rows_C, kl_C, zs_C_V, zt_C_V))
    for rows_R, kl_R, zs_R_V, zt_R_V in zip(*pieces, strict=True):
        slope_R_V = cap_slope(student, zs_R_V)
        kl, dlogits_R_V = _compare(student, teacher, rows_R, zs_R_V, zt_R_V, settings)
        kl_R.copy_(kl.clamp_min(0))  # rounding may leave −1e-9
        zs_R_V.copy_(dlogits_R_V if slope_R_V is None else dlogits_R_V.mul_(slope_R_V))
    if any(grad is not None for grad in grads):
        dlogits_C_V = zs_C_V.mul_((coefficient_C / settings.temperature)[:, None])
        _add_gradients(grads, student, rows_C, dlogits_C_V)
    return kl_C


def _compare(
    student: Projection, teacher: Teacher, rows_R: Tensor, zs_R_V: Tensor, zt_R_V: Tensor, settings: KLSettings
) -> tuple[Tensor, Tensor]:
    """Return the divergence [R] and its gradient on capped logits over the temperature [R, V]; overwrites logits."""
    if isinstance(teacher, TopK):
        top_R_K = likeliest(N_REFINED, zs_R_V) if student.is_refined else None
        return compare_top_k(student, teacher, rows_R, zs_R_V, top_R_K, settings)
    top_R_K = likeliest(N_REFINED, zs_R_V, zt_R_V) if student.is_refined or teacher.is_refined else None
    sides = ((student, zs_R_V), (teacher, zt_R_V))
    return settings.compare(
        *(log_normalised_(tempered_(side, rows_R, z_R_V, top_R_K, settings.temperature)) for side, z_R_V in sides)
    )


def _add_gradients(grads: Gradients, student: Projection, rows_C: Tensor, dlogits_C_V: Tensor) -> None:
    """Add one chunk's gradients, in place; rows beyond the shared vocabulary keep 0."""
    grad_hidden_N_H, grad_weight_V_H, grad_bias_V = grads
    n_vocabulary, dtype = student.weight_V_H.shape[0], dlogits_C_V.dtype
    if grad_bias_V is not None:
        grad_bias_V[:n_vocabulary] += dlogits_C_V.sum(0)
    dlogits_C_V = dlogits_C_V.to(student.weight_V_H.dtype)
    if grad_hidden_N_H is not None:
        tiles = zip(
            torch.split(dlogits_C_V, VOCABULARY_TILE, -1), torch.split(student.weight_V_H, VOCABULARY_TILE), strict=True
        )
        grad_hidden_N_H[rows_C] = sum(product(d_C_v, weight_v_H, dtype) for d_C_v, weight_v_H in tiles)
    if grad_weight_V_H is not None:
        total_V_H, hidden_C_H = grad_weight_V_H[:n_vocabulary], student.hidden[rows_C]
        if hidden_C_H.dtype is dtype:
            total_V_H.addmm_(dlogits_C_V.T, hidden_C_H)
        else:
            torch.addmm(total_V_H, dlogits_C_V.T, hidden_C_H, out_dtype=dtype, out=total_V_H)
