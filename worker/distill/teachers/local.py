"""A teacher in this process: a folder whose model is loaded, frozen, when the device is there."""

# Dimension suffixes are capitals: B sequences, A answer tokens, K listed tokens, V vocabulary.
# ruff: noqa: N803, N806

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paced.losses import Projection
from paced.losses.sides import product
from worker.distill.data import Example, lay_out
from worker.distill.model import answer_projection, autocast, check_packing, check_projection, load_model, sharpened
from worker.distill.teachers.target import Target

SCORED_AT_ONCE = 256  # tokens whose logits are there together


class LocalModel:
    """Reads answers after its own prompts; `sharpness` multiplies its logits."""

    def __init__(self, folder: Path, sharpness: float = 1.0, batch_size: int = 16, *, is_packing: bool = False) -> None:
        self.folder = folder
        self._batch_size = batch_size
        self.model: Any = None
        self._sharpness = sharpness
        self._dtype = torch.float32
        self._is_packing = is_packing

    def load(self, device: torch.device, dtype: torch.dtype, model: Any = None) -> None:
        """Put the model on a device, unless one that is there will do. Raises ModelRefused."""
        self._dtype = dtype
        self.model = model or load_model(self.folder, dtype, device).requires_grad_(requires_grad=False)
        check_projection(self.model, self.folder)
        if self._is_packing:
            check_packing(self.model, self.folder)

    @torch.no_grad()
    def side(self, examples: Sequence[Example]) -> Projection:
        """What predicts each answer token [B, A, ·], over the whole vocabulary."""
        padded = lay_out([e.teacher_prompt for e in examples], [e.answer for e in examples], is_packed=self._is_packing)
        device = self.model.device
        with autocast(device, self._dtype):
            return sharpened(answer_projection(self.model, padded.to(device), self._dtype), self._sharpness)

    def score(self, examples: Sequence[Example], top_k: int) -> list[Target]:
        """The likeliest tokens at each place of each answer, and in the first slot the answer's own token."""
        found: dict[int, Target] = {}
        by_length = sorted(
            range(len(examples)), key=lambda i: len(examples[i].teacher_prompt) + len(examples[i].answer)
        )
        for start in range(0, len(by_length), self._batch_size):
            places = by_length[start : start + self._batch_size]
            side = self.side([examples[place] for place in places])
            for row, place in enumerate(places):
                answer_A = torch.tensor(examples[place].answer, device=side.hidden.device)
                found[place] = _target(side, row, answer_A, top_k)
        return [found[place] for place in range(len(examples))]

    def close(self) -> None:
        """Nothing to free before the run's end."""


def _target(side: Projection, row: int, answer_A: Tensor, top_k: int) -> Target:
    ids, logprobs = [], []
    hidden_A_H = side.hidden[row, : len(answer_A)]
    for hidden_C_H, answer_C in zip(*(torch.split(x, SCORED_AT_ONCE) for x in (hidden_A_H, answer_A)), strict=True):
        lp_C_V = _logits(side, hidden_C_H).log_softmax(-1)
        top = lp_C_V.topk(min(top_k, lp_C_V.shape[-1] - 2))
        own_C_1 = answer_C[:, None]
        ids.append(torch.cat([own_C_1, top.indices.masked_fill(top.indices == own_C_1, -1)], -1))
        logprobs.append(torch.cat([lp_C_V.gather(-1, own_C_1), top.values], -1))
    return Target(torch.cat(ids).cpu().numpy().astype(np.int32), torch.cat(logprobs).cpu().numpy().astype(np.float32))


def _logits(side: Projection, hidden_C_H: Tensor) -> Tensor:
    logits_C_V = product(hidden_C_H, side.weight_V_H.T, torch.float32)
    if side.bias_V is not None:
        logits_C_V = logits_C_V + side.bias_V
    return logits_C_V if side.soft_cap is None else side.soft_cap * torch.tanh(logits_C_V / side.soft_cap)
