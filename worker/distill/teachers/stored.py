"""Targets on disk: computed once, read in later epochs, and by later runs that share the folder.

    FOLDER/TEACHER/XX/PROBLEM-HASH-kK.npz

HASH is of the token ids of prompt and answer, TEACHER the name that stands for weights, prompts and sampling. A file
appears whole or not at all, and what cannot be read counts as not there, so that processes may share a folder and be
killed at any time, on any file system.
"""

import hashlib
import io
import secrets
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from worker.distill.data import Example
from worker.distill.errors import ModelRefused
from worker.distill.teachers.target import Target

SAME_WEIGHTS = 0.5  # nats by which log-probabilities of one model may differ between two starts of a server
LIKELY = -5.0  # below, rounding in bfloat16 alone makes such differences


class Targets:
    """The targets of one teacher with `top_k` listed tokens."""

    def __init__(self, folder: Path, teacher: str, top_k: int) -> None:
        self._folder = folder / teacher
        self._top_k = top_k

    def of(
        self, examples: Sequence[Example], score: Callable[[Sequence[Example]], list[Target]]
    ) -> tuple[list[Target], int]:
        """Each example's target, and how many were not there: `score` is asked for these, and they are stored."""
        files = [self._file(example) for example in examples]
        found = [_read(file, len(example.answer)) for file, example in zip(files, examples, strict=True)]
        missing = [place for place, target in enumerate(found) if target is None]
        if missing:
            scored = score([examples[place] for place in missing])
            for place, target in zip(missing, scored, strict=True):
                _write(files[place], target)
                found[place] = target
        return [target for target in found if target is not None], len(missing)

    def check_probe(self, probe: Target) -> None:
        """Refuse a teacher that tells another probability of a known text than when targets were stored here.

        Raises ModelRefused.
        """
        file = self._folder / f"probe-k{self._top_k}.npz"
        before = _read(file, len(probe.ids_A_K))
        if before is None:
            _write(file, probe)
            return
        is_same = before.ids_A_K[:, 0] == probe.ids_A_K[:, 0]
        ours, theirs = before.logprobs_A_K[is_same, 0], probe.logprobs_A_K[is_same, 0]
        gap = np.abs(ours - theirs)[np.maximum(ours, theirs) > LIKELY].max(initial=0.0)
        if gap > SAME_WEIGHTS:
            raise ModelRefused(
                f"the teacher answers otherwise than when the targets in {self._folder} were computed (a token's "
                f"log-probability differs by {gap:.2f}): it serves other weights under the same name, whose texts "
                "are stored under it too. Serve them under another --served-model-name"
            )

    def _file(self, example: Example) -> Path:
        ids = np.array([len(example.teacher_prompt), *example.teacher_prompt, *example.answer], np.int64)
        digest = hashlib.sha256(ids.tobytes()).hexdigest()[:32]
        return self._folder / digest[:2] / f"{example.problem_id}-{digest}-k{self._top_k}.npz"


def _write(file: Path, target: Target) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, ids=target.ids_A_K, logprobs=target.logprobs_A_K, tail=target.tail_A.astype(np.float32))
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}.partial")
    partial.write_bytes(buffer.getvalue())
    partial.replace(file)


def _read(file: Path, n_tokens: int) -> Target | None:
    try:
        with np.load(io.BytesIO(file.read_bytes())) as stored:
            target = Target(stored["ids"], stored["logprobs"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    is_whole = target.ids_A_K.shape == target.logprobs_A_K.shape and len(target.ids_A_K) == n_tokens
    return target if is_whole else None
