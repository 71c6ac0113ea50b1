"""A causal language model as this trainer needs it: loaded from a folder, run up to its hidden states, its head apart.

Dimension suffixes: B sequences, T positions, A answer tokens, H width, V vocabulary.
"""

# The suffixes above are capitals:
# ruff: noqa: N806

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paced.losses import Projection
from paced.losses.checks import MAX_PADDING
from worker.distill.data import Padded, pack, pad
from worker.distill.errors import ModelRefused
from worker.distill.lora import FROZEN, MATRIX, adapters, merged
from worker.distill.ranks import whole

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
TOLERANCE = 1e-3  # of a probe's logits, relative to the largest


def pick_device(wish: str) -> torch.device:
    """The device asked for; 'auto' takes a CUDA GPU if there is one. Raises ModelRefused."""
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wish)
    except RuntimeError as error:
        raise ModelRefused(f"device {wish!r} is not one of torch's: try auto, cpu or cuda:0") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelRefused(f"device {wish!r} was asked for, but torch sees no CUDA GPU: use --device cpu")
    return device


def load_model(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """The causal model in a Hugging Face folder, in evaluation mode. Raises ModelRefused."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    _check_folder(folder)
    logging.disable_progress_bar()  # ours is the one to see
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{folder} cannot be loaded as a causal language model: {error}") from error
    return model.to(device).eval()


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer in a Hugging Face folder. Raises ModelRefused."""
    from transformers import AutoTokenizer

    _check_folder(folder)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{folder} holds no tokenizer that can be loaded: {error}") from error


class Body(nn.Module):
    """A causal model up to its hidden states [B, T, H]: what DDP and FSDP wrap, since the loss multiplies the head."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        """The last hidden states of the model's own inputs."""
        found: Tensor = self.model.base_model(**inputs, use_cache=False).last_hidden_state
        return found


def layers(model: Any) -> list[nn.Module]:
    """Its blocks, which FSDP gathers one at a time."""
    names = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def plain_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Each weight by its name in a plain model, whole, adapters merged in, one at a time; all ranks go through all."""
    adapted = adapters(model)
    for name, tensor in model.state_dict().items():
        if MATRIX in name:
            continue
        found = whole(tensor.detach())
        owner, is_adapted, part = name.rpartition(FROZEN)
        if is_adapted and part == "weight":
            found = merged(found, adapted[owner])
        yield f"{owner}.{part}" if is_adapted else name, found


@torch.no_grad()
def copy_weights(source: Any, target: nn.Module | None) -> None:
    """Make the target's weights those of the source, rounded to its type; None on ranks that only take part."""
    theirs = {} if target is None else target.state_dict()
    for name, tensor in plain_weights(source):
        if target is not None:
            theirs[name].copy_(tensor)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Arithmetic in `dtype` over float32 weights; float32 is left as it is."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)


def answer_projection(
    model: Any, padded: Padded, dtype: torch.dtype, body: Callable[..., Tensor] | None = None
) -> Projection:
    """What predicts each answer token: hidden states [B, A, H], and the model's head, unmultiplied.

    On a GPU in bfloat16 both stay in bfloat16, for tensor cores; elsewhere both are float32. `body` is what runs the
    model up to its hidden states where others take part in it.
    """
    body = body or Body(model)
    hidden_B_A_H = padded.predicting(body(**padded.inputs))
    is_tensor_core = hidden_B_A_H.is_cuda and dtype is torch.bfloat16
    return _projection(model, hidden_B_A_H, dtype if is_tensor_core else torch.float32)


def words_compared(student: Projection, teacher: Any, n_tokens: int) -> int | None:
    """Rows of both heads that are tokens, where one head is padded far more than the other; else None: all of them."""
    if not isinstance(teacher, Projection):
        return None
    rows = len(student.weight_V_H), len(teacher.weight_V_H)
    return min(n_tokens, *rows) if abs(rows[0] - rows[1]) > MAX_PADDING else None


def sharpened(side: Projection, factor: float) -> Projection:
    """The same with its logits multiplied by a factor. Raises ModelRefused for capped logits, which do not scale so."""
    if factor == 1:
        return side
    if side.soft_cap is not None:
        raise ModelRefused("teacher_sharpness does not fit a teacher whose logits are capped: leave it at 1")
    return replace(side, hidden=side.hidden * factor, bias_V=None if side.bias_V is None else side.bias_V * factor)


def check_projection(model: Any, folder: Path) -> None:
    """Refuse an architecture whose logits are not `head(hidden)`: the loss would be of something else.

    Raises ModelRefused.
    """
    ids = torch.arange(4, device=model.device)[None] % model.config.vocab_size
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits.float()
        side = _projection(model, model.base_model(input_ids=ids, use_cache=False).last_hidden_state, torch.float32)
        ours = nn.functional.linear(side.hidden, side.weight_V_H, side.bias_V)
        if side.soft_cap is not None:
            ours = side.soft_cap * torch.tanh(ours / side.soft_cap)
    tolerance = TOLERANCE if model.dtype is torch.float32 else 30 * TOLERANCE
    if float((ours - logits).abs().max()) > tolerance * float(logits.abs().max()):
        raise ModelRefused(
            f"{folder} ({type(model).__name__}) makes its logits otherwise than by multiplying hidden states with its "
            "head (a scale between them, perhaps), so the chunked loss does not fit it"
        )


@torch.no_grad()
def check_packing(model: Any, folder: Path) -> None:
    """Refuse a model that reads sequences which share a row otherwise than alone. Raises ModelRefused."""
    prompts, answers = [[1, 2, 3], [4, 5, 6, 7, 8]], [[9, 10], [11]]
    n_words = model.config.vocab_size
    prompts, answers = ([[token % n_words for token in ids] for ids in side] for side in (prompts, answers))
    ours, theirs = (
        padded.predicting(Body(model)(**padded.inputs)).float()[padded.mask_B_A]
        for padded in (x.to(model.device) for x in (pack(prompts, answers), pad(prompts, answers, 0)))
    )
    tolerance = TOLERANCE if model.dtype is torch.float32 else 30 * TOLERANCE
    if float((ours - theirs).abs().max()) > tolerance * float(theirs.abs().max()):
        raise ModelRefused(
            f"{folder} ({type(model).__name__}, attention {model.config._attn_implementation}) reads sequences that "
            "are packed into one row otherwise than alone: leave packing off, and give micro_batch_tokens"
        )


def _projection(model: Any, hidden: Tensor, dtype: torch.dtype) -> Projection:
    head = model.get_output_embeddings()
    bias = getattr(head, "bias", None)
    soft_cap = getattr(model.config, "final_logit_softcapping", None)
    return Projection(hidden.to(dtype), head.weight.to(dtype), None if bias is None else bias.to(dtype), soft_cap)


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelRefused(f"{folder} is not a Hugging Face model folder: it holds no config.json")
