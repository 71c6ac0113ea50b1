"""Teacher and student: small Hugging Face causal models, trained in code, kept under `.benchmarks/learning`.

Since a problem has one right answer, the chance that a model writes it at temperature 1 is a product of token
probabilities: `pass_rates` are exact, without any sampling.

Dimension suffixes: B sequences, T positions, A answer tokens, V vocabulary.
"""

# The suffixes above are capitals:
# ruff: noqa: N806

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from app.flow.estimates.columns import FloatArray
from benchmarks.learning.skills import CHARACTERS, END, SKILLS, Problem, encode, make_problem
from worker.distill.data import Padded, pad
from worker.distill.model import answer_projection

HOME = Path(".benchmarks/learning")
SCORED = 256  # sequences at a time where no gradient is kept
WARM_UP = 50  # steps
N_HEADS = 4


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is made: its size, how long it learns, and how often it sees each length (from 1 on)."""

    width: int
    n_layers: int
    n_steps: int
    lengths: tuple[float, ...]
    batch_size: int = 64
    learning_rate: float = 3e-3
    seed: int = 0

    @property
    def folder(self) -> Path:
        """Where it is kept; another recipe lies elsewhere."""
        digest = hashlib.sha256(json.dumps([asdict(self), CHARACTERS]).encode()).hexdigest()[:12]
        return HOME / f"model-{digest}"


def load(recipe: Recipe) -> Any:
    """The model of a recipe, in evaluation mode; trained on first use."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not (recipe.folder / "config.json").is_file():
        unfinished = recipe.folder.with_suffix(f".{os.getpid()}")
        train(recipe).save_pretrained(unfinished)
        unfinished.rename(recipe.folder)
    return AutoModelForCausalLM.from_pretrained(recipe.folder, local_files_only=True).eval()


def train(recipe: Recipe) -> Any:
    """A model of a recipe, taught by right answers (cross-entropy), with a learning rate that falls to nothing."""
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    model = _fresh(recipe)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01, betas=(0.9, 0.98))
    shares = np.array(recipe.lengths) / sum(recipe.lengths)
    for step in range(recipe.n_steps):
        lengths = rng.choice(len(shares), recipe.batch_size, p=shares) + 1
        skills = rng.choice(list(SKILLS), recipe.batch_size)
        problems = [make_problem(str(skill), int(n), rng) for skill, n in zip(skills, lengths, strict=True)]
        rate = recipe.learning_rate * min(1.0, (step + 1) / WARM_UP) * max(0.02, 1 - step / recipe.n_steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        padded = pad_answers(problems, [right_answer(problem) for problem in problems])
        logits_B_A_V = answer_logits(model, padded)
        loss = nn.functional.cross_entropy(logits_B_A_V[padded.mask_B_A], _targets(padded)[padded.mask_B_A])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


def right_answer(problem: Problem) -> list[int]:
    """Token ids of the right answer, end token included."""
    return [*encode(problem.answer), END]


def pad_answers(problems: Sequence[Problem], answers: Sequence[list[int]]) -> Padded:
    """Prompts and answers as tensors."""
    return pad([encode(problem.prompt) for problem in problems], answers, pad_id=END)


def answer_logits(model: Any, padded: Padded) -> Tensor:
    """Logits [B, A, V] of each answer token."""
    side = answer_projection(model, padded, torch.float32)
    return nn.functional.linear(side.hidden, side.weight_V_H)


@torch.no_grad()
def pass_rates(model: Any, problems: Sequence[Problem]) -> FloatArray:
    """The exact chance of each problem's right answer at temperature 1."""
    found = []
    for start in range(0, len(problems), SCORED):
        some = problems[start : start + SCORED]
        padded = pad_answers(some, [right_answer(problem) for problem in some])
        log_p_B_A = answer_logits(model, padded).log_softmax(-1).gather(-1, _targets(padded)[..., None])[..., 0]
        found.append((log_p_B_A * padded.mask_B_A).sum(-1).exp())
    return np.asarray(torch.cat(found).numpy(), np.float64)


def _targets(padded: Padded) -> Tensor:
    """The tokens [B, A] that are to be predicted; whatever the padding holds where there are none."""
    last = padded.input_ids_B_T.shape[1] - 1
    return padded.input_ids_B_T.gather(1, (padded.position_B_A + 1).clamp_max(last))


def _fresh(recipe: Recipe) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(CHARACTERS),
        hidden_size=recipe.width,
        intermediate_size=2 * recipe.width,
        num_hidden_layers=recipe.n_layers,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_HEADS,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=END,
    )
    return LlamaForCausalLM(config)
