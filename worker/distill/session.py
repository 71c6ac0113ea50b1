"""What a run holds while it trains: loaded, and put where the run was left."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from paced.client import Client
from paced.wire import Curriculum, Profile
from worker import precision
from worker.distill import checkpoint, model
from worker.distill.batches import Batches
from worker.distill.checkpoint import Progress, RunRecord
from worker.distill.config import DistillConfig
from worker.distill.errors import ConfigRefused
from worker.distill.lessons import Lessons, check_outcomes
from worker.distill.lora import Unadapted, adapt
from worker.distill.metrics import Recorder
from worker.distill.ranks import Ranks, joined, spread
from worker.distill.rounding import RoundingAdamW
from worker.distill.runs import open_run
from worker.distill.stages import Patience, Stop
from worker.distill.teachers.by_tag import Teachers
from worker.distill.teachers.references import Judge, Library
from worker.distill.teachers.writer import make_writer

log = logging.getLogger(__name__)

Watch = Callable[[int, int | None, dict[str, float]], None]
"""Called after each step with its number, the schedule's length (None: open) and the step's figures."""


@dataclass
class Session:
    """A run, ready to train; `body` is the student up to its hidden states, as all ranks run it.

    `recorder` is the first rank's alone, `saved_step` the step to resume from, −1 before the first save.
    """

    config: DistillConfig
    client: Client
    ranks: Ranks
    curriculum: Curriculum
    profile: Profile
    n_problems: int
    run_id: str
    student: Any
    body: nn.Module
    tokenizer: Any
    optimizer: torch.optim.Optimizer
    lessons: Lessons
    batches: Batches
    recorder: Recorder | None
    progress: Progress
    patience: Patience
    watch: Watch
    saved_step: int = -1

    @property
    def dtype(self) -> torch.dtype:
        """Of the arithmetic."""
        return model.DTYPES[self.config.dtype]


@contextlib.contextmanager
def opened(config: DistillConfig, client: Client, stop: Stop, watch: Watch) -> Iterator[Session]:
    """Everything a run needs, freed at the end; the first rank holds the run's folder."""
    asked = config
    with ExitStack() as stack:
        ranks = stack.enter_context(joined(config.rank_timeout_s))
        ranks.from_first(lambda: stack.enter_context(checkpoint.locked(config.out)))
        device = model.pick_device(config.device)
        curriculum = ranks.from_first(lambda: client.curriculum(config.curriculum_id))
        profile = client.profile(curriculum.profile_id)
        problem_set = client.problem_set(curriculum.problem_set)
        tokenizer = model.load_tokenizer(config.student)
        teachers = stack.enter_context(contextlib.closing(Teachers(config, profile, tokenizer)))
        config = config.model_copy(update={"dtype": precision.resolved(config.dtype, device.type)})
        _check(config, profile, ranks.n_ranks)
        student = _student(config, device)
        body = spread(model.Body(student), model.layers(student), config.parallel, ranks)
        record = ranks.from_first(lambda: open_run(asked, client, curriculum))
        trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
        adamw = torch.optim.AdamW if config.weights_dtype == "float32" else RoundingAdamW
        optimizer = adamw(trained, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay)
        progress = _progress(config, record, student, optimizer, ranks)
        is_sharing = config.lora_rank and config.parallel != "fsdp"
        teachers.load(device, model.DTYPES[config.dtype], Unadapted(student) if is_sharing else None)
        recorder = Recorder(client, record.run_id, config.out, progress.step) if ranks.is_first else None
        patience = Patience(config.wait_s, stop, ranks)
        runner = stack.enter_context(asyncio.Runner())
        judge = stack.enter_context(Judge(runner, profile, problem_set.policy))
        library = stack.enter_context(
            contextlib.closing(Library(client, teachers, judge, runner, partial(make_writer, config, ranks.n_ranks)))
        )
        lessons = Lessons(config, profile, student, tokenizer, teachers, library, judge)
        batches = stack.enter_context(
            Batches(client, curriculum.curriculum_id, record.run_id, config.batch_size, patience)
        )
        yield Session(
            config, client, ranks, curriculum, profile, problem_set.n_problems, record.run_id, student, body, tokenizer,
            optimizer, lessons, batches, recorder, progress, patience, watch, progress.step,
        )  # fmt: skip


def _check(config: DistillConfig, profile: Profile, n_ranks: int) -> None:
    """Refuse settings that do not fit this device, the profile or several ranks. Raises ConfigRefused."""
    check_outcomes(config, profile)
    if config.engine == "vllm" and n_ranks > 1:
        raise ConfigRefused(
            "engine 'vllm' on several processes would start one engine for each of them, all on the first GPU: leave "
            "engine out, and transformers write the teacher's texts, or give a teacher behind a URL"
        )
    if config.weights_dtype == "bfloat16" and config.dtype == "float32":
        raise ConfigRefused(
            "weights_dtype 'bfloat16' goes with arithmetic in bfloat16, and dtype is float32 here (asked for, or "
            "because this device is slow at bfloat16): leave weights_dtype out, or set dtype to bfloat16"
        )


def _student(config: DistillConfig, device: torch.device) -> Any:
    """The student as it is trained: all its weights, or adapters beside weights that are frozen."""
    student = model.load_model(config.student, model.DTYPES[config.held_dtype], device)
    model.check_projection(student, config.student)
    if config.packing:
        model.check_packing(student, config.student)
    if config.gradient_checkpointing:
        student.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.lora_rank:
        adapt(student, config)
    return student


def _progress(
    config: DistillConfig, record: RunRecord, student: Any, optimizer: torch.optim.Optimizer, ranks: Ranks
) -> Progress:
    """Where the run was left; weights and optimiser are put back."""
    found = checkpoint.load_state(config.out, student, optimizer, ranks)
    if found is None:
        return Progress(0, record.base_index)
    if found.step and ranks.is_first:
        log.warning("resuming run %s at step %d", config.run_name, found.step)
    return found
