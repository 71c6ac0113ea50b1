"""How tokens and sequences add up to the loss of an optimiser step: `Σ_i w_i · mean_t KL_{i,t} / D`, and its kin."""

# Dimension suffixes are capitals: B sequences, T positions.
# ruff: noqa: N803, N806

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, distributed

Reduction = Literal["seq_mean", "token_mean", "seq_sum"]
Denominator = Literal["set_mean", "batch"]

UNUSABLE = "sequence weights must be finite and not negative"
UNEQUAL = (
    "sequence weights differ under reduction 'token_mean', which multiplies each weight by the sequence's length, so "
    "that long sequences take the weight meant for others: use 'seq_mean', or 'seq_sum' if length should count"
)


def sequence_coefficients(
    mask_B_T: Tensor, weights_B: Tensor, reduction: Reduction = "seq_mean", *, denominator: float
) -> Tensor:
    """Return the factor [B, T] of each token's KL, so that `Σ coefficient · KL` is the loss of these sequences.

    `seq_mean`: `Σ_i w_i · mean_t KL_{i,t} / D`; `seq_sum`: `Σ_i w_i · Σ_t KL_{i,t} / D`; `token_mean`:
    `w · Σ_{i,t} KL_{i,t} / D`. D covers the whole optimiser step, all micro-batches and all ranks: see
    `step_denominator`. `mask_B_T` is nonzero on tokens to score.

    Raises ValueError on mismatched shapes, an unknown reduction, weights that are negative or not finite, a D that is
    not positive, and differing weights under `token_mean`.
    """
    _check_reduction(reduction)
    if mask_B_T.ndim != 2 or weights_B.shape != mask_B_T.shape[:1]:
        raise ValueError(f"mask has shape {[*mask_B_T.shape]}, weights {[*weights_B.shape]}: give [B, T] and [B]")
    if not 0 < denominator < math.inf:
        raise ValueError(f"denominator is {denominator}: it must be positive and finite")
    if not bool(_is_usable(weights_B).all()):
        raise ValueError(UNUSABLE)
    weights_B = weights_B.detach().to(torch.promote_types(weights_B.dtype, torch.float32))
    mask_B_T = mask_B_T != 0
    if reduction == "seq_mean":
        weights_B = weights_B / mask_B_T.sum(-1).clamp_min(1)
    elif reduction == "token_mean" and bool((weights_B != weights_B[:1]).any()):
        raise ValueError(UNEQUAL)
    return mask_B_T * (weights_B / denominator)[:, None]


def step_denominator(
    weights_B: Tensor,
    n_tokens: int,
    reduction: Reduction = "seq_mean",
    denominator: Denominator = "set_mean",
    *,
    set_mean: float = 1.0,
    group: Any = None,
    is_averaged: bool = True,
) -> float:
    """Return the D of one optimiser step; 0 if nothing weighs anything, and the step should be skipped.

    `weights_B` are the weights of all sequences of this rank's step, `n_tokens` its tokens to score. Under the sequence
    reductions D is `set_mean` · B, the mean weight over the problem set times the number of sequences, so that a batch
    of low weights stays small; or with `batch` the step's own Σw. Under `token_mean` it is the number of tokens.

    Where `torch.distributed` is initialised, every rank must call this: D is that of all ranks of `group`. DDP and FSDP
    average gradients over ranks, which divides once more: D is then smaller by the number of ranks. Say
    `is_averaged=False` if yours adds them. Raises ValueError as `sequence_coefficients` does.
    """
    _check_reduction(reduction)
    if denominator not in get_args(Denominator):
        raise ValueError(f"denominator {denominator!r} is not known: choose one of {', '.join(get_args(Denominator))}")
    if not 0 < set_mean < math.inf:
        raise ValueError(f"set_mean is {set_mean}: it must be positive and finite")
    weights_B, n_ranks = weights_B.detach().double(), 1
    sums = torch.stack([weights_B.sum(), weights_B.square().sum(), (~_is_usable(weights_B)).sum()])
    sums = torch.cat([sums, sums.new_tensor([len(weights_B), n_tokens])])
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(sums, group=group)
        n_ranks = distributed.get_world_size(group) if is_averaged else 1
    # Weights are judged by sums of all ranks: one that raised alone would leave the others waiting.
    weight, square, n_unusable, n_sequences, n_scored = (float(x) for x in sums)
    if n_unusable:
        raise ValueError(UNUSABLE)
    if weight == 0:
        return 0.0
    if reduction == "token_mean":
        if square * n_sequences > weight * weight * (1 + 1e-9):
            raise ValueError(UNEQUAL)
        return n_scored / n_ranks
    return (set_mean * n_sequences if denominator == "set_mean" else weight) / n_ranks


def _is_usable(weights_B: Tensor) -> Tensor:
    return torch.isfinite(weights_B) & (weights_B >= 0)


def _check_reduction(reduction: str) -> None:
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction {reduction!r} is not known: choose one of {', '.join(get_args(Reduction))}")
