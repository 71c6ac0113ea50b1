"""Exact, weighted KL distillation losses, computed from hidden states chunk by chunk.

A student and a teacher are given as `Projection`s: hidden states and the head that would turn them into logits. A few
tokens at a time are projected, compared, and turned into gradients of the student's hidden states and head by the
closed forms below, so the full logits [N, V] never exist, neither forward nor backward. With z the logits, τ the
temperature, `ls = log softmax(z_s/τ)`, `lt = log softmax(z_t/τ)` and p = exp:

    forward KL = KL(p_t ‖ p_s) = Σ_v p_t (lt − ls)     ∂/∂(z_s/τ) = p_s − p_t
    reverse KL = KL(p_s ‖ p_t) = Σ_v p_s (ls − lt)     ∂/∂(z_s/τ) = p_s (ls − lt − KL)

No τ² factor is applied: multiply the loss by τ² for the convention of Hinton et al. (2015). KL is in nats.

Dimension suffixes: B sequences, T positions, N = B·T tokens, C tokens of one chunk, V vocabulary, H width (the
student's and the teacher's may differ).
"""

# The suffixes above are capitals:
# ruff: noqa: N803, N806, N815

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Reduction = Literal["seq_mean", "token_mean", "seq_sum"]
Divergence = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Gradients = tuple[Tensor | None, ...]  # of hidden states, weight and bias

MAX_PADDING = 512  # heads of one tokenizer differ by so many rows at most (Qwen2.5: 151,936 and 152,064)
ROWS_COMPARED = 64  # a matrix product wants many tokens at a time, what follows it small temporaries


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


@dataclass(frozen=True)
class KLSettings:
    """What is compared, and how: raises ValueError on a setting that means nothing.

    `divergence` is a name in `DIVERGENCES`. Both heads are cut to their first `vocab_size` rows, over which both
    distributions are normalised; when None, to the shorter head's, if they differ by no more than padding.
    `chunk_size` tokens are projected at a time, each on about 10 · V bytes; the result does not depend on it.
    """

    divergence: str = "forward_kl"
    temperature: float = 1.0
    vocab_size: int | None = None
    chunk_size: int = 256

    def __post_init__(self) -> None:
        """Refuse what would fail later, or silently mean something else."""
        if self.divergence not in DIVERGENCES:
            raise ValueError(f"divergence {self.divergence!r} is not known: choose one of {', '.join(DIVERGENCES)}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}: it must be positive and finite")
        if self.chunk_size < 1:
            raise ValueError(f"chunk_size is {self.chunk_size}: at least one token must be projected at a time")


@dataclass(frozen=True)
class LossMetrics:
    """What a loss was made of, detached: KL in nats per token, over the tokens that were scored.

    `kl_B` [B] is each sequence's mean, nan where none of its tokens was scored (weight 0, or all masked);
    `kl_token_mean` [] is the mean over all tokens, whatever their weight, nan if there was none; `n_tokens` [] counts.
    """

    kl_B: Tensor
    kl_token_mean: Tensor
    n_tokens: Tensor


def forward_kl(ls_C_V: Tensor, lt_C_V: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p_t ‖ p_s) of each token [C], and its gradient on the student's logits [C, V]; overwrites its arguments."""
    p_t_C_V = lt_C_V.exp()
    ratio_C_V = lt_C_V.sub_(ls_C_V)
    dlogits_C_V = ls_C_V.exp_().sub_(p_t_C_V)
    # Adding Σ(p_s − p_t), which is 0, cancels the rounding of both normalisers: it matters when the two are close.
    kl_C = ratio_C_V.mul_(p_t_C_V).add_(dlogits_C_V).sum(-1)
    return kl_C, dlogits_C_V


def reverse_kl(ls_C_V: Tensor, lt_C_V: Tensor) -> tuple[Tensor, Tensor]:
    """KL(p_s ‖ p_t) of each token [C], and its gradient on the student's logits [C, V]; overwrites its arguments."""
    p_s_C_V = ls_C_V.exp()
    ratio_C_V = ls_C_V.sub_(lt_C_V)
    kl_C = lt_C_V.exp_().sub_(p_s_C_V).addcmul_(p_s_C_V, ratio_C_V).sum(-1)  # with Σ(p_t − p_s), as above
    return kl_C, ratio_C_V.sub_(kl_C[:, None]).mul_(p_s_C_V)


# A new divergence is one more function (ls, lt) -> (KL per token, dlogits), without other effects, and a line here.
DIVERGENCES: dict[str, Divergence] = {"forward_kl": forward_kl, "reverse_kl": reverse_kl}


def sequence_coefficients(
    mask_B_T: Tensor, weights_B: Tensor, reduction: Reduction = "seq_mean", *, denominator: float
) -> Tensor:
    """Return the factor [B, T] of each token's KL, so that `Σ coefficient · KL` is the loss of these sequences.

    `seq_mean`: `Σ_i w_i · mean_t KL_{i,t} / D`; `seq_sum`: `Σ_i w_i · Σ_t KL_{i,t} / D`; `token_mean`:
    `w · Σ_{i,t} KL_{i,t} / D`. D is the caller's, because it covers the whole optimiser step: all micro-batches, all
    ranks. For the sequence reductions it is Σw of the step, or mean(w over the problem set) · B so that a batch of low
    weights stays small; for `token_mean` it is the step's number of tokens. `mask_B_T` is nonzero on tokens to score.

    Raises ValueError on mismatched shapes, an unknown reduction, weights that are negative or not finite, a D that is
    not positive, and differing weights under `token_mean`.
    """
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction {reduction!r} is not known: choose one of {', '.join(get_args(Reduction))}")
    if mask_B_T.ndim != 2 or weights_B.shape != mask_B_T.shape[:1]:
        raise ValueError(f"mask has shape {[*mask_B_T.shape]}, weights {[*weights_B.shape]}: give [B, T] and [B]")
    if not 0 < denominator < math.inf:
        raise ValueError(f"denominator is {denominator}: it must be positive and finite")
    if not bool((torch.isfinite(weights_B) & (weights_B >= 0)).all()):
        raise ValueError("sequence weights must be finite and not negative")
    weights_B = weights_B.detach().to(torch.promote_types(weights_B.dtype, torch.float32))
    mask_B_T = mask_B_T != 0
    if reduction == "seq_mean":
        weights_B = weights_B / mask_B_T.sum(-1).clamp_min(1)
    elif reduction == "token_mean" and bool((weights_B != weights_B[:1]).any()):
        raise ValueError(
            "sequence weights differ under reduction 'token_mean', which multiplies each weight by the sequence's "
            "length, so that long sequences take the weight meant for others: use 'seq_mean', or 'seq_sum' if length "
            "should count"
        )
    return mask_B_T * (weights_B / denominator)[:, None]


def weighted_kl(
    student: Projection, teacher: Projection, coefficient: Tensor, settings: KLSettings | None = None
) -> tuple[Tensor, Tensor]:
    """Return the exact loss `Σ coefficient · KL` [] and each token's KL [...], detached.

    `coefficient` has the hidden states' leading shape [...] and is a constant. Tokens whose coefficient is 0 are not
    projected at all; their KL reads 0. The loss is differentiable in the student's hidden states, weight and bias;
    the teacher is a constant, even where it shares the student's tensors. float64 hidden states are compared in
    float64, all others in float32, autocast or not; gradients add up in that precision and are rounded to their
    tensor's once. They are made in the forward pass and given away by the backward: a second one raises RuntimeError.

    Raises ValueError on mismatched shapes, on a coefficient that requires grad, and on vocabularies that differ.
    """
    settings = settings or KLSettings()
    _check_shapes(student, teacher, coefficient)
    n_vocabulary = _shared_vocabulary(student.weight_V_H.shape[0], teacher.weight_V_H.shape[0], settings.vocab_size)
    inputs: list[Tensor | None] = [student.hidden.flatten(0, -2), student.weight_V_H, student.bias_V]
    if not torch.is_grad_enabled():  # which Function.forward cannot see
        inputs = [None if x is None else x.detach() for x in inputs]
    with torch.autocast(student.hidden.device.type, enabled=False):
        loss, kl_N = _WeightedKL.apply(  # type: ignore[no-untyped-call]  # torch leaves it bare
            *inputs, student.soft_cap, teacher, coefficient.flatten(), replace(settings, vocab_size=n_vocabulary)
        )
    return loss, kl_N.view(coefficient.shape)


def distillation_loss(
    student: Projection,
    teacher: Projection,
    mask_B_T: Tensor,
    weights_B: Tensor,
    *,
    denominator: float,
    reduction: Reduction = "seq_mean",
    settings: KLSettings | None = None,
) -> tuple[Tensor, LossMetrics]:
    """Return the loss [] of B weighted sequences, `Σ_i w_i · mean_t KL_{i,t} / D` by default, and its metrics.

    Hidden states are [B, T, H], aligned with `mask_B_T`: position t is the one that predicts a token to score.
    See `sequence_coefficients` for weights, reduction and D, `weighted_kl` for precision, and both for errors.
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
        teacher: Projection,
        coefficient_N: Tensor,
        settings: KLSettings,
    ) -> tuple[Tensor, Tensor]:
        dtype = torch.float64 if hidden_N_H.dtype is torch.float64 else torch.float32
        student = Projection(hidden_N_H, weight_V_H, bias_V, soft_cap)
        teacher = replace(teacher, hidden=teacher.hidden.flatten(0, -2))
        sides = (_operands(student, settings.vocab_size, dtype), _operands(teacher, settings.vocab_size, dtype))
        coefficient_N = coefficient_N.to(dtype)
        kl_N = torch.zeros_like(coefficient_N)
        inputs = (hidden_N_H, weight_V_H, bias_V)
        ctx.dtypes = tuple(None if x is None else x.dtype for x in inputs)
        ctx.grads = tuple(
            torch.zeros_like(x, dtype=dtype) if x is not None and needed else None
            for x, needed in zip(inputs, ctx.needs_input_grad[:3], strict=True)
        )
        for rows_C in torch.split(coefficient_N.nonzero().squeeze(-1), settings.chunk_size):
            kl_N[rows_C] = _score(sides, rows_C, coefficient_N[rows_C], settings, ctx.grads)
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


def _operands(side: Projection, n_vocabulary: int | None, dtype: torch.dtype) -> Projection:
    """Return the projection cut to the shared vocabulary, in the types it is multiplied in."""
    hidden_N_H, weight_V_H = side.hidden.detach(), side.weight_V_H.detach()[:n_vocabulary]
    is_tensor_core = hidden_N_H.is_cuda and hidden_N_H.dtype is weight_V_H.dtype is torch.bfloat16
    operand = torch.bfloat16 if is_tensor_core else dtype  # float16 would lose small gradients
    bias_V = None if side.bias_V is None else side.bias_V.detach()[:n_vocabulary].to(dtype)
    return Projection(hidden_N_H.to(operand), weight_V_H.to(operand), bias_V, side.soft_cap)


def _score(
    sides: tuple[Projection, Projection], rows_C: Tensor, coefficient_C: Tensor, settings: KLSettings, grads: Gradients
) -> Tensor:
    """Return the KL [C] of one chunk's tokens, and add their gradients to `grads`."""
    student, teacher = sides
    zs_C_V, slope_C_V = _logits(student, rows_C, settings.temperature, coefficient_C.dtype)
    zt_C_V, _ = _logits(teacher, rows_C, settings.temperature, coefficient_C.dtype)
    kl_C = torch.empty_like(coefficient_C)
    for kl_R, zs_R_V, zt_R_V in zip(*(torch.split(x, ROWS_COMPARED) for x in (kl_C, zs_C_V, zt_C_V)), strict=True):
        kl, dlogits_R_V = DIVERGENCES[settings.divergence](_log_softmax_(zs_R_V), _log_softmax_(zt_R_V))
        kl_R.copy_(kl.clamp_min(0))  # rounding may leave −1e-9
        zs_R_V.copy_(dlogits_R_V)
    if any(grad is not None for grad in grads):
        dlogits_C_V = zs_C_V.mul_((coefficient_C / settings.temperature)[:, None])
        if slope_C_V is not None:
            dlogits_C_V *= slope_C_V
        _add_gradients(grads, student, rows_C, dlogits_C_V)
    return kl_C


def _logits(side: Projection, rows_C: Tensor, temperature: float, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Project some tokens: logits [C, V] over the temperature, and the slope [C, V] of a soft cap."""
    logits_C_V, slope_C_V = _matmul(side.hidden[rows_C], side.weight_V_H.T, dtype), None
    if side.bias_V is not None:
        logits_C_V += side.bias_V
    if side.soft_cap is not None:
        tanh_C_V = logits_C_V.div_(side.soft_cap).tanh_()
        slope_C_V = 1 - tanh_C_V.square()
        logits_C_V = tanh_C_V * side.soft_cap
    return logits_C_V if temperature == 1 else logits_C_V.div_(temperature), slope_C_V


def _log_softmax_(logits: Tensor) -> Tensor:
    """Normalise in place, adding up pairwise: torch's own adds in a row on the CPU, off by 1e-5 at V = 151,936."""
    logits -= logits.amax(-1, keepdim=True)
    logits -= logits.exp().sum(-1, keepdim=True).log_()
    return logits


def _add_gradients(grads: Gradients, student: Projection, rows_C: Tensor, dlogits_C_V: Tensor) -> None:
    """Add one chunk's gradients, in place; rows beyond the shared vocabulary keep 0."""
    grad_hidden_N_H, grad_weight_V_H, grad_bias_V = grads
    n_vocabulary, dtype = student.weight_V_H.shape[0], dlogits_C_V.dtype
    if grad_bias_V is not None:
        grad_bias_V[:n_vocabulary] += dlogits_C_V.sum(0)
    dlogits_C_V = dlogits_C_V.to(student.weight_V_H.dtype)
    if grad_hidden_N_H is not None:
        grad_hidden_N_H[rows_C] = _matmul(dlogits_C_V, student.weight_V_H, dtype)
    if grad_weight_V_H is not None:
        hidden_C_H = student.hidden[rows_C]
        if hidden_C_H.dtype is dtype:
            grad_weight_V_H[:n_vocabulary].addmm_(dlogits_C_V.T, hidden_C_H)  # without a temporary [V, H]
        else:
            grad_weight_V_H[:n_vocabulary] += _matmul(dlogits_C_V.T, hidden_C_H, dtype)


def _matmul(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Multiply with a result in `dtype`: bfloat16 logits would put up to 20 % of error on a token's KL."""
    return a @ b if a.dtype is dtype else torch.mm(a, b, out_dtype=dtype)


def _shared_vocabulary(n_student: int, n_teacher: int, vocab_size: int | None) -> int:
    """Return how many rows of both heads are compared; raises ValueError when that is a guess."""
    shorter = min(n_student, n_teacher)
    if vocab_size is None and abs(n_student - n_teacher) > MAX_PADDING:
        raise ValueError(
            f"the student's head has {n_student:,} rows and the teacher's {n_teacher:,}: they differ by more than "
            f"padding ({MAX_PADDING}). If both use one tokenizer, pass vocab_size=len(tokenizer); between different "
            "tokenizers this KL means nothing"
        )
    if vocab_size is not None and not 1 <= vocab_size <= shorter:
        raise ValueError(f"vocab_size is {vocab_size:,}: it must be from 1 to {shorter:,}, the shorter head's rows")
    return vocab_size or shorter


def _check_shapes(student: Projection, teacher: Projection, coefficient: Tensor) -> None:
    """Raise ValueError when tensors do not fit together, naming them."""
    for name, side in (("student", student), ("teacher", teacher)):
        if side.hidden.shape[:-1] != coefficient.shape:
            shapes = f"{[*side.hidden.shape]} and the coefficients {[*coefficient.shape]}"
            raise ValueError(f"the {name}'s hidden states are {shapes}: they must agree up to the width")
        if side.weight_V_H.ndim != 2 or side.weight_V_H.shape[1] != side.hidden.shape[-1]:
            shapes = f"{[*side.weight_V_H.shape]} and {[*side.hidden.shape]}"
            raise ValueError(f"the {name}'s head and hidden states are {shapes}: give [V, H] and [..., H]")
    if coefficient.requires_grad:
        raise ValueError("the coefficients require grad, which this loss cannot give: detach them")
