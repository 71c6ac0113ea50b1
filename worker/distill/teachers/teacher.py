"""The frozen teacher: a model of its own, or the first student shown the reference answer.

The self teacher reads another prompt than the student, the reference in context (OPSD's privileged teacher); the
answer tokens after it are the same, and the loss compares the two token by token.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paced.prompts import chat_messages
from paced.wire import BatchProblem, Message, Profile
from worker.distill.config import DistillConfig
from worker.distill.data import encode_chat
from worker.distill.errors import ModelRefused
from worker.distill.model import load_tokenizer
from worker.distill.teachers.addresses import TeacherAt
from worker.distill.teachers.local import LocalModel
from worker.distill.teachers.served import ServedModel
from worker.rollout.engine import Sampling

PLACEHOLDER = re.compile(r"\{(prompt|answer|solution)\}")
OTHER = re.compile(r"[^A-Za-z0-9.-]")
SAMPLE_BYTES = 1 << 20

Source = LocalModel | ServedModel


@dataclass(frozen=True)
class Teacher:
    """Where it is, how it is asked, and a name that stands for everything that shapes its texts."""

    name: str
    at: TeacherAt
    source: Source
    tokenizer: Any
    config: DistillConfig
    profile: Profile
    sampling: Sampling

    def messages(self, problem: BatchProblem) -> list[Message]:
        """The chat that the teacher answers."""
        chat = chat_messages(problem.prompt, self.profile)
        return with_reference(chat, problem, self.config) if self.at.is_self else chat

    def prompt(self, problem: BatchProblem) -> list[int]:
        """The same as token ids."""
        return encode_chat(self.tokenizer, self.messages(problem))

    def attempt(self, number: int) -> Sampling:
        """The sampling of the first, second, ... try at a text."""
        return replace(self.sampling, seed=self.config.seed + number)

    @property
    def is_dropping_wrong(self) -> bool:
        """Whether its wrong texts are left out."""
        return self.config.is_dropping_wrong(is_self=self.at.is_self)


def make_teacher(at: TeacherAt, config: DistillConfig, profile: Profile, tokenizer: Any) -> Teacher:
    """A teacher, not loaded yet; `tokenizer` is the student's. Raises ModelRefused where the two do not fit."""
    sampling = Sampling(
        n=1,
        temperature=config.teacher_temperature,
        top_p=config.teacher_top_p,
        top_k=0,
        max_tokens=min(profile.max_tokens, config.max_answer_tokens),
        stop=tuple(profile.stop),
        seed=config.seed,
    )
    source, own = make_source(at, config, tokenizer)
    name = teacher_name(at, config, profile, source, sampling)
    return Teacher(name, at, source, own, config, profile, sampling)


def make_source(at: TeacherAt, config: DistillConfig, tokenizer: Any) -> tuple[Source, Any]:
    """Where a teacher's words come from, and its tokenizer; a folder is not loaded, a URL not asked.

    Raises ModelRefused where a folder's vocabulary is not the student's.
    """
    if at.is_served:
        return ServedModel(at, len(tokenizer), config.teacher_requests, config.teacher_timeout_s), tokenizer
    folder = config.student if at.is_self else Path(at.at)
    own = tokenizer if at.is_self else load_tokenizer(folder)
    check_vocabulary(tokenizer, own, folder)
    return LocalModel(folder, config.teacher_sharpness, config.micro_batch_size, is_packing=config.packing), own


def with_reference(chat: Sequence[Message], problem: BatchProblem, config: DistillConfig) -> list[Message]:
    """The chat with the reference in its last user turn."""
    has_solution = bool(problem.solution)
    template = config.teacher_context_solution if has_solution else config.teacher_context
    messages = list(chat)
    for place in range(len(messages) - 1, -1, -1):
        if messages[place].role == "user":
            values = {"prompt": messages[place].content, "answer": problem.answer, "solution": problem.solution or ""}
            # In one pass, so that a problem which itself holds "{answer}" is left alone.
            content = PLACEHOLDER.sub(lambda match: values[match[1]], template)  # noqa: B023 - used at once
            messages[place] = Message(role="user", content=content)
            return messages
    return messages


def teacher_name(at: TeacherAt, config: DistillConfig, profile: Profile, source: Source, sampling: Sampling) -> str:
    """A name under which stored texts may be used again: it changes with weights, prompts and sampling."""
    if isinstance(source, LocalModel):
        kind, label = "self" if at.is_self else "model", source.folder.resolve().name
        weights: Any = fingerprint(source.folder)
    else:
        kind, label = "served", OTHER.sub("_", str(source.model))
        weights = [source.at.at, source.model]
    shape = {
        "weights": weights,
        "context": [config.teacher_context, config.teacher_context_solution] if at.is_self else None,
        "prompt": [profile.system_prompt, profile.prompt_template],
        "sampling": [sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.stop],
        "attempts": [config.teacher_attempts, config.seed],
    }
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]
    return f"{kind}-{label[:100]}-{digest}"


def fingerprint(folder: Path) -> str:
    """A hash of a model folder: names and sizes of all weight files, and the first and last MiB of each."""
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin"), folder / "config.json"]):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}:".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(SAMPLE_BYTES))
            stream.seek(max(0, size - SAMPLE_BYTES))
            digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()


def check_vocabulary(student: Any, teacher: Any, folder: Path) -> None:
    """Refuse a teacher whose tokens mean something else: KL over them would be nonsense. Raises ModelRefused."""
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours != theirs:
        n_other = len({token for token, _ in ours.items() ^ theirs.items()})
        raise ModelRefused(
            f"the teacher in {folder} has another vocabulary than the student ({n_other:,} tokens of {len(theirs):,} "
            f"and {len(ours):,} are missing or differ), so their distributions cannot be compared: choose a teacher of "
            "the same family"
        )
