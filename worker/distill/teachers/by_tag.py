"""The teachers of a run: one for all problems, or one by a problem's tag."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from paced.losses import Projection, TopK
from paced.wire import BatchProblem, Profile, Stage
from worker.distill.config import DistillConfig
from worker.distill.data import Example
from worker.distill.teachers.addresses import DEFAULT_TAG, TeacherAt
from worker.distill.teachers.local import LocalModel
from worker.distill.teachers.preflight import Found, preflight
from worker.distill.teachers.served import ServedModel
from worker.distill.teachers.stored import Targets
from worker.distill.teachers.target import stacked
from worker.distill.teachers.teacher import Teacher, make_source, make_teacher

log = logging.getLogger(__name__)


class Teachers:
    """Every teacher once, whatever number of tags names it.

    Made before a device is held: folders are looked at and not loaded, URLs are asked for all that a run needs of
    them. Raises ModelRefused and TeacherSilent.
    """

    def __init__(self, config: DistillConfig, profile: Profile, tokenizer: Any) -> None:
        self._config = config
        made = {at: _made(at, config, profile, tokenizer) for at in dict.fromkeys(config.by_tag.values())}
        self._by_tag = {tag: made[at] for tag, at in config.by_tag.items()}
        self._by_name = {teacher.name: teacher for teacher in made.values()}

    def __iter__(self) -> Iterator[Teacher]:
        return iter(self._by_name.values())

    def load(self, device: torch.device, dtype: torch.dtype, first_student: Any = None) -> None:
        """Put the local ones on a device; the self teacher is `first_student` if it is there. Raises ModelRefused."""
        for teacher in self:
            if isinstance(teacher.source, LocalModel):
                teacher.source.load(device, dtype, first_student if teacher.at.is_self else None)

    def close(self) -> None:
        """Close connections."""
        for teacher in self:
            teacher.source.close()

    def of(self, problem: BatchProblem) -> Teacher:
        """The teacher of a problem: by the first of its tags that has one, else the default."""
        tag = next((tag for tag in problem.tags if tag in self._by_tag), DEFAULT_TAG)
        return self._by_tag[tag]

    def told(self, examples: Sequence[Example], stage: Stage) -> tuple[list[Example], int]:
        """The examples with their targets, where a teacher tells but some tokens; and how many were asked for.

        A teacher's own text is scored once for all epochs and runs, the student's each time. A local teacher that
        need not be spared reads the student's text with it, over the whole vocabulary. Raises TeacherSilent.
        """
        found, n_asked = list(examples), 0
        for teacher in self:
            top_k = self._config.top_k_of(teacher.at)
            if top_k is None or (stage == Stage.REVERSE_KL and not teacher.at.is_served):
                continue
            places = [place for place, example in enumerate(found) if example.teacher == teacher.name]
            mine = [found[place] for place in places]
            if stage == Stage.FORWARD_KL:
                score = partial(teacher.source.score, top_k=top_k)
                targets, n_new = Targets(self._config.targets_folder, teacher.name, top_k).of(mine, score)
            else:
                targets, n_new = teacher.source.score(mine, top_k), len(mine)
            for place, target in zip(places, targets, strict=True):
                found[place] = replace(found[place], target=target)
            n_asked += n_new
        return found, n_asked

    def side(self, examples: Sequence[Example], device: torch.device) -> Projection | TopK:
        """What the teacher predicts at each answer token [B, A, ·] of examples that have one reader."""
        if not examples[0].reader:
            return stacked([e.target for e in examples if e.target is not None], device)
        source = self._by_name[examples[0].reader].source
        assert isinstance(source, LocalModel)
        return source.side(examples)


def _made(at: TeacherAt, config: DistillConfig, profile: Profile, tokenizer: Any) -> Teacher:
    if not at.is_served:
        return make_teacher(at, config, profile, tokenizer)
    top_k = config.top_k_of(at)
    assert top_k is not None
    source, _ = make_source(at, config, tokenizer)
    assert isinstance(source, ServedModel)
    seen = preflight(source, tokenizer, top_k)
    _warn_of_length(seen, config)
    teacher = make_teacher(at.model_copy(update={"model": seen.model}), config, profile, tokenizer)
    Targets(config.targets_folder, teacher.name, top_k).check_probe(seen.probe)
    return teacher


def _warn_of_length(seen: Found, config: DistillConfig) -> None:
    longest = config.max_prompt_tokens + config.max_answer_tokens + 1
    if seen.max_tokens is not None and seen.max_tokens < longest:
        log.warning(
            "the teacher %s takes %d tokens, but a prompt and an answer may be %d long: lower max_prompt_tokens or "
            "max_answer_tokens, or serve it with a greater --max-model-len",
            seen.model, seen.max_tokens, longest,
        )  # fmt: skip
