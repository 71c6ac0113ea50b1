"""Whether a checkpoint folder can replace the weights of a loaded model, told from its headers alone."""

import json
from pathlib import Path
from typing import Any

from worker.rollout.engine import EngineFailure

# What must agree for weights to fit into the loaded architecture.
SHAPE_KEYS = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "tie_word_embeddings",
)
HEADER_LIMIT_BYTES = 100_000_000
NO_FOLDER = "there is no folder {uri} on this machine; checkpoints must be readable by the workers."


def check_folder(uri: str) -> None:
    """Raise EngineFailure when `uri` looks like a folder but holds no model; hub names pass."""
    folder = Path(uri)
    if not folder.is_dir():
        if folder.is_absolute() or uri.startswith((".", "~")):
            raise EngineFailure(NO_FOLDER.format(uri=uri))
        return
    if not (folder / "config.json").is_file():
        raise EngineFailure(f"{uri} holds no config.json; save the model with `save_pretrained`.")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise EngineFailure(f"{uri} holds no weights (*.safetensors); was it still being written?")


def check_fit(uri: str, model: str | None) -> None:
    """Raise EngineFailure when the checkpoint at `uri` would not load into `model`, both being folders."""
    folder = Path(uri)
    if not folder.is_dir():
        raise EngineFailure(NO_FOLDER.format(uri=uri))
    check_folder(uri)
    if model is None or not Path(model).is_dir():
        return
    mine, theirs = _config(Path(model)), _config(folder)
    for key in SHAPE_KEYS:
        if mine.get(key) != theirs.get(key):
            raise EngineFailure(
                f"the checkpoint {uri} does not fit the loaded model {model}: "
                f"{key} is {theirs.get(key)!r}, not {mine.get(key)!r}. Start another worker for it."
            )
    _check_tensors(folder, Path(model))


def _check_tensors(folder: Path, model: Path) -> None:
    mine, theirs = _shapes(model), _shapes(folder)
    if not mine or not theirs:  # not safetensors: vLLM will tell
        return
    missing = sorted(mine.keys() - theirs.keys())
    wrong = sorted(name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name])
    if missing or wrong:
        name = (missing or wrong)[0]
        found = theirs.get(name, "missing")
        raise EngineFailure(
            f"the checkpoint {folder} does not fit the loaded model {model}: "
            f"{name} is {found}, not {mine[name]} ({len(missing)} missing, {len(wrong)} of another shape)."
        )


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise EngineFailure(f"{folder / 'config.json'} is not JSON: {error}") from error
    return config if isinstance(config, dict) else {}


def _shapes(folder: Path) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        shapes |= {name: tensor["shape"] for name, tensor in _header(file).items() if name != "__metadata__"}
    return shapes


def _header(file: Path) -> dict[str, Any]:
    """The header of a safetensors file: 8 bytes of length, then JSON; every tensor's bytes must be there."""
    try:
        with file.open("rb") as stream:
            n_bytes = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(n_bytes, HEADER_LIMIT_BYTES)))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineFailure(f"{file} is not a safetensors file: {error}") from error
    if file.stat().st_size < 8 + n_bytes + max(ends, default=0):
        raise EngineFailure(f"{file} is cut short; was it still being written?")
    return dict(header)
