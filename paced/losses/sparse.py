"""A teacher behind a server, of which only some log-probabilities of each token are known.

The tokens that it lists are compared one by one, and all others together as one more bucket: the divergences are those
of distributions over K + 1 outcomes. The student's bucket is its exact probability of all tokens not listed; a gradient
on it is shared among them in proportion to their probabilities. The divergence is at most that over the vocabulary.
"""

# Dimension suffixes are capitals: N or R tokens, V vocabulary, K listed.
# ruff: noqa: N803, N806

from dataclasses import dataclass

import torch
from torch import Tensor

from paced.losses.divergences import KLSettings
from paced.losses.sides import NEVER, Projection, log_normalised_, tempered_

LEAST_TAIL = 1e-7  # what a sum of probabilities that were sent in float32 leaves uncertain
SLACK = 1e-3  # by which served probabilities may add up to more than 1


@dataclass(frozen=True)
class TopK:
    """What a teacher was told or asked about each token: ids [..., K] and their log-probabilities [..., K].

    The log-probabilities are those of the whole vocabulary, at temperature 1, as inference servers send them: not
    renormalised over the K. An empty slot has id −1; the first slot is never empty. The ids may be the teacher's
    likeliest, best for forward KL, or the student's, best for reverse KL.
    """

    ids: Tensor
    logprobs: Tensor

    def prepared(self, n_vocabulary: int, is_scored_N: Tensor) -> "TopK":
        """The same, detached and flat. Raises ValueError on what cannot be log-probabilities of distinct tokens."""
        top = TopK(self.ids.detach().flatten(0, -2), self.logprobs.detach().flatten(0, -2).double())
        _check(TopK(top.ids[is_scored_N], top.logprobs[is_scored_N]), n_vocabulary)
        return top

    def buckets(self, rows_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ids [R, K], which of them are empty [R, K], and log-probabilities [R, K + 1] with that of all others."""
        ids_R_K, logprobs_R_K = self.ids[rows_R], self.logprobs[rows_R]
        is_empty_R_K = ids_R_K < 0
        logprobs_R_K = logprobs_R_K.masked_fill(is_empty_R_K, NEVER)
        tail_R_1 = (1 - logprobs_R_K.exp().sum(-1, keepdim=True)).clamp_min_(LEAST_TAIL).log_()
        ids_R_K = torch.where(is_empty_R_K, ids_R_K[:, :1], ids_R_K)
        return ids_R_K, is_empty_R_K, log_normalised_(torch.cat([logprobs_R_K, tail_R_1], -1))


def compare_top_k(
    student: Projection, teacher: TopK, rows_R: Tensor, zs_R_V: Tensor, top_R_K: Tensor | None, settings: KLSettings
) -> tuple[Tensor, Tensor]:
    """Return the divergence [R] over K + 1 buckets, and its gradient [R, V] on logits, in place of the raw ones.

    `top_R_K` are the student's likeliest tokens, whose logits are refined besides those that the teacher lists.
    """
    ids_R_K, is_empty_R_K, lt_R_B = teacher.buckets(rows_R)
    refined_R_K = None if top_R_K is None else torch.cat([top_R_K, ids_R_K], -1)
    z_R_V = tempered_(student, rows_R, zs_R_V, refined_R_K, settings.temperature)
    listed_R_K = z_R_V.gather(-1, ids_R_K).double().masked_fill_(is_empty_R_K, NEVER)
    z_R_V.scatter_(-1, ids_R_K, NEVER)
    highest_R_1 = z_R_V.amax(-1, keepdim=True)
    p_rest_R_V = z_R_V.sub_(highest_R_1).exp_()  # of the tokens not listed, to be normalised
    sum_R_1 = p_rest_R_V.sum(-1, keepdim=True)
    rest_R_1 = sum_R_1.double().log().add_(highest_R_1)
    kl_R, dbuckets_R_B = settings.compare(log_normalised_(torch.cat([listed_R_K, rest_R_1], -1)), lt_R_B)
    dbuckets_R_B = dbuckets_R_B.to(z_R_V.dtype)
    p_rest_R_V *= dbuckets_R_B[:, -1:] / sum_R_1
    return kl_R.to(z_R_V.dtype), p_rest_R_V.scatter_add_(-1, ids_R_K, dbuckets_R_B[:, :-1])


def check_top_k(teacher: TopK, settings: KLSettings, leading: torch.Size) -> None:
    """Raise ValueError where a sparse teacher would silently mean something else."""
    if teacher.ids.shape != teacher.logprobs.shape or teacher.ids.shape[:-1] != leading:
        shapes = f"{[*teacher.ids.shape]} and {[*teacher.logprobs.shape]}"
        raise ValueError(f"the teacher's ids and log-probabilities are {shapes}: give both as {[*leading]} and K")
    if settings.temperature != 1:
        raise ValueError(
            f"temperature is {settings.temperature}, but served log-probabilities are those of temperature 1, and "
            "the top-k alone do not tell those of another: leave it at 1"
        )
    if settings.divergence == "akl":
        raise ValueError(
            "divergence 'akl' compares the teacher's head with its tail token by token, which a top-k does not list: "
            "use 'forward_kl', 'reverse_kl' or 'jsd'"
        )


def _check(scored: TopK, n_vocabulary: int) -> None:
    """Look at the tokens that are scored; the others may hold anything."""
    ids_N_K, logprobs_N_K = scored.ids, scored.logprobs
    if ids_N_K.shape[-1] >= n_vocabulary:
        raise ValueError(f"the teacher lists {ids_N_K.shape[-1]} of {n_vocabulary} tokens: give all of it as logits")
    if bool((ids_N_K >= n_vocabulary).any()):
        highest = int(ids_N_K.max())
        raise ValueError(f"the teacher lists token {highest:,}, but the student's vocabulary has {n_vocabulary:,}")
    is_listed_N_K = ids_N_K >= 0
    if not bool(is_listed_N_K[:, :1].all()):
        raise ValueError("the teacher lists nothing in the first slot of a token: leave it out by the mask")
    ordered_N_K = ids_N_K.sort(-1).values
    if bool(((ordered_N_K[:, 1:] == ordered_N_K[:, :-1]) & (ordered_N_K[:, 1:] >= 0)).any()):
        raise ValueError("the teacher lists a token twice in one place: its probability would count twice")
    if not bool(torch.isfinite(logprobs_N_K[is_listed_N_K]).all()):
        raise ValueError("a log-probability of the teacher is not finite: mark an empty slot by id −1")
    sums_N = (logprobs_N_K.exp() * is_listed_N_K).sum(-1)
    if bool((sums_N > 1 + SLACK).any()):
        raise ValueError(
            f"the teacher's probabilities of one place add up to {float(sums_N.max()):.4f}: give natural logarithms of "
            "probabilities, not logits"
        )
