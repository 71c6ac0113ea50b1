"""What a teacher said of each token of one answer: its likeliest tokens there, kept for later."""

# Dimension suffixes are capitals: B sequences, A answer tokens, K listed tokens.
# ruff: noqa: N802, N806, N815

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from paced.losses import TopK


@dataclass(frozen=True, eq=False)
class Target:
    """Ids [A, K] int32 and log-probabilities [A, K] float32 of temperature 1, over the whole vocabulary.

    An empty slot has id −1; what is missing of a probability of 1 is the tail's, of all other tokens together.
    """

    ids_A_K: NDArray[np.int32]
    logprobs_A_K: NDArray[np.float32]

    @property
    def tail_A(self) -> NDArray[np.float64]:
        """The probability of all tokens that are not listed [A]."""
        listed_A_K = np.where(self.ids_A_K >= 0, np.exp(self.logprobs_A_K.astype(np.float64)), 0.0)
        found: NDArray[np.float64] = np.clip(1.0 - listed_A_K.sum(-1), 0.0, 1.0)
        return found


def stacked(targets: Sequence[Target], device: torch.device) -> TopK:
    """Targets of several answers as one side [B, A, K]; places beyond an answer's end are empty."""
    n_tokens = max(len(target.ids_A_K) for target in targets)
    n_listed = max(target.ids_A_K.shape[1] for target in targets)
    ids_B_A_K = np.full((len(targets), n_tokens, n_listed), -1, np.int64)
    logprobs_B_A_K = np.zeros(ids_B_A_K.shape, np.float32)
    for row, target in enumerate(targets):
        n_own, n_slots = target.ids_A_K.shape
        ids_B_A_K[row, :n_own, :n_slots] = target.ids_A_K
        logprobs_B_A_K[row, :n_own, :n_slots] = target.logprobs_A_K
    return TopK(torch.from_numpy(ids_B_A_K).to(device), torch.from_numpy(logprobs_B_A_K).to(device))
