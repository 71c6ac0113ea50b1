"""A causal language model as this trainer needs it: loaded from a folder, run up to its hidden states, its head apart.

Dimension suffixes: B sequences, T positions, A answer tokens, H width, V vocabulary.
"""

# The suffixes above are capitals:
# ruff: noqa: N806

import copy
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paced.losses import Projection
from worker.distill.data import Padded
from worker.distill.errors import ModelRefused

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


def frozen_copy(model: Any, dtype: torch.dtype) -> Any:
    """A copy that no gradient reaches, in another type."""
    return copy.deepcopy(model).to(dtype).eval().requires_grad_(requires_grad=False)


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Make the target's weights those of the source, rounded to its type."""
    for theirs, ours in zip(source.parameters(), target.parameters(), strict=True):
        ours.copy_(theirs)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Arithmetic in `dtype` over float32 weights; float32 is left as it is."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)


def answer_projection(model: Any, padded: Padded, dtype: torch.dtype) -> Projection:
    """What predicts each answer token: hidden states [B, A, H], and the model's head, unmultiplied.

    On a GPU in bfloat16 both stay in bfloat16, for tensor cores; elsewhere both are float32.
    """
    hidden_B_T_H = model.base_model(
        input_ids=padded.input_ids_B_T, attention_mask=padded.attention_B_T, use_cache=False
    ).last_hidden_state
    index_B_A_H = padded.position_B_A[:, :, None].expand(-1, -1, hidden_B_T_H.shape[-1])
    is_tensor_core = hidden_B_T_H.is_cuda and dtype is torch.bfloat16
    return _projection(model, hidden_B_T_H.gather(1, index_B_A_H), dtype if is_tensor_core else torch.float32)


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


def _projection(model: Any, hidden: Tensor, dtype: torch.dtype) -> Projection:
    head = model.get_output_embeddings()
    bias = getattr(head, "bias", None)
    soft_cap = getattr(model.config, "final_logit_softcapping", None)
    return Projection(hidden.to(dtype), head.weight.to(dtype), None if bias is None else bias.to(dtype), soft_cap)


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelRefused(f"{folder} is not a Hugging Face model folder: it holds no config.json")
