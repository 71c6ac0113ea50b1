"""The teachers of a run: one for all problems, or one by a problem's tag."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from paced.losses import Projection, TopK
from paced.wire import BatchProblem, Profile
from worker.distill.addresses import DEFAULT_TAG
from worker.distill.config import DistillConfig
from worker.distill.data import Example
from worker.distill.target import stacked
from worker.distill.teacher import Teacher, make_teacher


class Teachers:
    """Every teacher once, whatever number of tags names it; nothing is loaded before `load`."""

    def __init__(self, config: DistillConfig, profile: Profile, tokenizer: Any) -> None:
        made = {at: make_teacher(at, config, profile, tokenizer) for at in dict.fromkeys(config.by_tag.values())}
        self._by_tag = {tag: made[at] for tag, at in config.by_tag.items()}
        self._by_name = {teacher.name: teacher for teacher in made.values()}

    def __iter__(self) -> Iterator[Teacher]:
        return iter(self._by_name.values())

    def load(self, device: torch.device, dtype: torch.dtype) -> None:
        """Put the local ones on a device. Raises ModelRefused."""
        for teacher in self:
            teacher.source.load(device, dtype)

    def of(self, problem: BatchProblem) -> Teacher:
        """The teacher of a problem: by the first of its tags that has one, else the default."""
        tag = next((tag for tag in problem.tags if tag in self._by_tag), DEFAULT_TAG)
        return self._by_tag[tag]

    def side(self, examples: Sequence[Example], device: torch.device) -> Projection | TopK:
        """What the teacher predicts at each answer token [B, A, ·] of examples that have one reader."""
        if examples[0].reader:
            return self._by_name[examples[0].reader].source.side(examples)
        return stacked([e.target for e in examples if e.target is not None], device)
