"""What a run leaves on disk: the state it resumes from, and checkpoints that others load. Both appear whole or not.

    OUT/run.json                what the run is; written before its first step
    OUT/state.pt                weights, optimiser and next step; replaced every `save_every` steps
    OUT/lock                    held by the trainer that works here
    OUT/metrics.jsonl           one line a step
    OUT/checkpoints/step-N/     Hugging Face folders, registered with the service

Randomness needs no state: every step seeds itself from the run's seed and its own number.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from worker.distill.errors import ConfigRefused, FolderBusy, StateBroken
from worker.distill.ranks import Ranks

FORMAT = 2


@dataclass(frozen=True)
class RunRecord:
    """What a run is; `base_index` is the checkpoint that it starts from."""

    run_id: str
    base_index: int
    identity: dict[str, Any]
    student_fingerprint: str


@dataclass(frozen=True)
class Progress:
    """How far a run is: the next step, the newest checkpoint, and the step at which that was registered.

    `decided_step` is the last one at which it was asked whether the stage ends.
    """

    step: int
    checkpoint_index: int
    published_step: int = 0
    decided_step: int = 0


def read_record(out: Path) -> RunRecord | None:
    """The run that a folder belongs to, None for a new folder. Raises StateBroken."""
    file = out / "run.json"
    if not file.exists():
        return None
    try:
        return RunRecord(**json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise StateBroken(
            f"{file} is not a run's record ({error}): give another --out, or remove the folder"
        ) from error


def write_record(out: Path, record: RunRecord) -> None:
    """Make a folder this run's."""
    replace_file(out / "run.json", json.dumps(asdict(record), indent=2).encode())


def check_identity(before: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Refuse to go on with other settings than the run began with. Raises ConfigRefused, naming each."""
    names = sorted(before.keys() | now.keys())
    lines = [f"  {n}: was {before.get(n)!r}, now {now.get(n)!r}" for n in names if before.get(n) != now.get(n)]
    if lines:
        raise ConfigRefused(
            "\n".join(
                [
                    f"{where} was begun with other settings:",
                    *lines,
                    "resume it with the settings it had, or begin a new run with another --run and --out",
                ]
            )
        )


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold a run's folder alone; the lock ends with the process, however that ends. Raises FolderBusy."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolderBusy(f"another trainer works in {out}: stop it, or give another --out") from error
        yield


def save_state(out: Path, model: Any, optimizer: torch.optim.Optimizer, progress: Progress, ranks: Ranks) -> None:
    """Replace the resume state; the former one stays until this one is on disk. Every rank takes part."""
    options = _options(model)
    state = {
        "format": FORMAT,
        "progress": asdict(progress),
        "model": _trained(model, get_model_state_dict(model, options=options)),
        # asked for the state of one that made no step yet, torch makes a step
        "optimizer": get_optimizer_state_dict(model, optimizer, options=options) if optimizer.state else None,
    }
    ranks.from_first(lambda: _write_state(out, state))


def load_state(out: Path, model: Any, optimizer: torch.optim.Optimizer, ranks: Ranks) -> Progress | None:
    """Put the saved weights and optimiser back, None if nothing was saved; the number of ranks may be another.

    Raises StateBroken.
    """
    state: dict[str, Any] = {"model": {}, "optimizer": {}}
    progress, has_stepped = ranks.from_first(lambda: (_read_state(out, state), state["optimizer"] is not None))
    if progress is not None:
        options = _options(model, is_told=ranks.n_ranks > 1)
        with _naming(out / "state.pt"):
            set_model_state_dict(model, state["model"], options=options)
            if has_stepped:
                set_optimizer_state_dict(model, optimizer, state["optimizer"], options=options)
    return progress


def _trained(model: Any, weights: dict[str, Any]) -> dict[str, Any]:
    """The weights that are trained, each also by the name of what is tied to it."""
    frozen = {id(p) for p in model.parameters() if not p.requires_grad}
    names = {name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in frozen}
    return {name: tensor for name, tensor in weights.items() if name not in names}


def _options(model: Any, *, is_told: bool = False) -> StateDictOptions:
    """Whole tensors of what is trained, on the first rank's CPU; `is_told`: from there to all ranks."""
    has_frozen = any(not parameter.requires_grad for parameter in model.parameters())
    return StateDictOptions(
        full_state_dict=True,
        cpu_offload=True,
        ignore_frozen_params=has_frozen,
        strict=not has_frozen,
        broadcast_from_rank0=is_told,
    )


def _write_state(out: Path, state: dict[str, Any]) -> None:
    partial = out / "state.pt.partial"
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(out / "state.pt")
    _sync_folder(out)


def _read_state(out: Path, into: dict[str, Any]) -> Progress | None:
    file = out / "state.pt"
    if not file.exists():
        return None
    with _naming(file):
        into.update(torch.load(file, map_location="cpu", weights_only=True))
        if into["format"] != FORMAT:
            raise ValueError(f"it has format {into['format']}, this version reads {FORMAT}")
        return Progress(**into["progress"])


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # torch raises whatever the file's damage leads it to
        raise StateBroken(
            f"{file} cannot be resumed from ({error}): remove it to redo the run from its first step, "
            "on the same batches"
        ) from error


def export(model: Any, tokenizer: Any, out: Path, step: int) -> Path:
    """Write a model as a Hugging Face folder, which appears whole; one that is there already is kept."""
    folder = checkpoint_folder(out, step)
    if folder.exists():
        return folder
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    for file in partial.iterdir():
        file.chmod(0o644)  # rollout workers may run as another user
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    partial.rename(folder)
    _sync_folder(folder.parent)
    return folder


def checkpoint_folder(out: Path, step: int) -> Path:
    """Where the weights before a step lie."""
    return (out / "checkpoints" / f"step-{step:06d}").resolve()


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that after a crash it is either the former or the new one."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
