"""The training loop, to be read from top to bottom.

One process, one device: a step is a batch of the service, one or more micro-batches, one AdamW update. Left out on
purpose: several GPUs (use `paced` from a trainer that has them), learning-rate decay (a schedule may be open-ended),
checkpoint averaging.

A step in order: draw, update, record, acknowledge, save if due. Killed anywhere, the run resumes from the saved state
and does the steps since then again. Their batches are durable and come back under the same key `run_id:step`,
acknowledged or not, and a step draws its randomness from the run's seed and its number: the weights are those of every
batch once. Since acknowledging goes before saving, no batch of a saved step is left open.
"""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from paced.client import Client
from paced.errors import BatchExpired, PacedError
from paced.losses import KLSettings, distillation_loss, step_denominator
from paced.stream import count_steps
from paced.wire import Batch, CheckpointCreate, Curriculum, Profile, RunState, Stage
from worker import precision
from worker.distill import checkpoint, model, stages
from worker.distill.checkpoint import Progress
from worker.distill.config import DistillConfig
from worker.distill.data import Example, micro_batches, pad
from worker.distill.errors import ConfigRefused, DistillError, Interrupted, WaitedTooLong
from worker.distill.lessons import Lesson, Lessons
from worker.distill.metrics import Recorder, batch_metrics
from worker.distill.references import Judge, Library
from worker.distill.runs import open_run
from worker.distill.stages import Patience, Stop
from worker.distill.teachers import Teachers
from worker.distill.writer import make_writer

log = logging.getLogger(__name__)

Watch = Callable[[int, int | None, dict[str, float]], None]
"""Called after each step with its number, the schedule's length (None: open) and the step's figures."""


@dataclass
class Session:
    """What a run holds while it trains."""

    config: DistillConfig
    client: Client
    curriculum: Curriculum
    profile: Profile
    run_id: str
    student: Any
    tokenizer: Any
    optimizer: torch.optim.Optimizer
    lessons: Lessons
    recorder: Recorder
    progress: Progress
    patience: Patience
    watch: Watch
    saved_step: int = -1

    @property
    def dtype(self) -> torch.dtype:
        """Of the arithmetic."""
        return model.DTYPES[self.config.dtype]


def train(config: DistillConfig, client: Client, stop: Stop, watch: Watch) -> dict[str, Any]:
    """Run a distillation to the end of its schedule, resuming it if its folder holds a state; returns a report.

    Raises DistillError and PacedError; on Interrupted the state is saved.
    """
    with checkpoint.locked(config.out), opened(config, client, stop, watch) as session:
        first_step = session.progress.step
        try:
            run_schedule(session)
        except Interrupted as error:
            save(session)
            message = f"stopped before step {session.progress.step}; the same command resumes there"
            raise Interrupted(message, error.signal_number) from error
        except Exception as error:
            if isinstance(error, WaitedTooLong):
                save(session)
            _say_failed(session)
            if isinstance(error, torch.OutOfMemoryError):
                raise DistillError(f"{error}. Lower --micro-batch-size; the step stays the same") from error
            raise
        client.update_run(session.run_id, RunState.FINISHED)
        return report(session, first_step)


def run_schedule(session: Session) -> None:
    """Every step from the saved one to the end of the schedule, with checkpoints at the ends of stages."""
    config, curriculum = session.config, session.curriculum
    if config.wait_for_measurement:
        stages.wait_until_known(session.client, curriculum.measurement_id, session.patience)
    while config.max_steps is None or session.progress.step < config.max_steps:
        session.patience.stop.check()
        step = session.progress.step
        if stages.is_stage_start(curriculum.schedule, step):
            start_stage(session)
        elif config.checkpoint_every and step and step % config.checkpoint_every == 0:
            publish(session)
        batch = stages.draw(
            session.client, curriculum.curriculum_id, config.batch_size, session.run_id, step, session.patience
        )
        if batch is None:
            break
        run_step(session, batch, step)
    publish(session)
    save(session)


def run_step(session: Session, batch: Batch, step: int) -> None:
    """Train on one batch, write down that it is done, and tell the service."""
    if batch.step != step:
        raise DistillError(
            f"the service counts batch {batch.batch_id} as step {batch.step} of run {session.run_id}, this trainer as "
            f"{step}: another trainer draws batches for the run. Stop it, or begin a run of another name"
        )
    started = time.monotonic()
    torch.manual_seed(step_seed(session.config, step))
    lesson = session.lessons.of(batch)
    values = {**batch_metrics(batch), **lesson.metrics, **update(session, lesson, batch.stage, step)}
    values["duration_s"] = time.monotonic() - started
    session.recorder.record(step, batch.stage, values)
    acknowledge(session, batch, lesson)
    session.progress = replace(session.progress, step=step + 1)
    if session.progress.step % session.config.save_every == 0:
        save(session)
    session.watch(step, count_steps(session.curriculum.schedule), values)


def update(session: Session, lesson: Lesson, stage: Stage, step: int) -> dict[str, float]:
    """One optimiser step on the weighted KL of a lesson; nothing moves if the lesson is empty."""
    config = session.config
    denominator = loss_denominator(config, lesson.examples)
    if denominator <= 0:
        return {"n_sequences": 0}
    for group in session.optimizer.param_groups:
        group["lr"] = config.learning_rate_at(step, stage)
    session.optimizer.zero_grad(set_to_none=True)
    loss, kl_sum, n_tokens = 0.0, 0.0, 0
    torch.manual_seed(step_seed(config, step))  # writing text may have drawn from it
    session.student.train()
    for examples in micro_batches(lesson.examples, config.micro_batch_size):
        part, kl, n_part = group_loss(session, examples, stage, denominator)
        part.backward()  # type: ignore[no-untyped-call]
        loss, kl_sum, n_tokens = loss + part.item(), kl_sum + kl, n_tokens + n_part
    session.student.eval()
    norm = float(torch.nn.utils.clip_grad_norm_(session.student.parameters(), config.clip_norm))
    if not torch.isfinite(torch.tensor([loss, norm])).all():
        raise DistillError(
            f"step {step}: the loss is {loss} and its gradient {norm}; the state of step {max(session.saved_step, 0)} "
            "is kept. Begin a run with a lower learning rate, or with dtype float32"
        )
    session.optimizer.step()
    return {
        "loss": loss,
        "kl_per_token": kl_sum / max(1, n_tokens),
        "grad_norm": norm,
        "learning_rate": config.learning_rate_at(step, stage),
        "n_sequences": len(lesson.examples),
        "n_tokens": n_tokens,
    }


def group_loss(
    session: Session, examples: list[Example], stage: Stage, denominator: float
) -> tuple[torch.Tensor, float, int]:
    """A micro-batch's share of the step's loss, its summed KL in nats, and its scored tokens.

    Student and teacher each read the answers after their own prompts; the two are compared token by token.
    """
    config, device = session.config, session.student.device
    ours = pad([e.student_prompt for e in examples], [e.answer for e in examples], pad_id=0).to(device)
    with model.autocast(device, session.dtype):
        student_side = model.answer_projection(session.student, ours, session.dtype)
    divergence = config.divergence_of(stage)
    loss, metrics = distillation_loss(
        student_side,
        session.lessons.teachers.side(examples, device),
        ours.mask_B_A,
        torch.tensor([e.weight for e in examples], device=device),
        denominator=denominator,
        reduction=config.reduction,
        settings=KLSettings(divergence=divergence, temperature=config.temperature, chunk_size=config.chunk_tokens),
    )
    n_tokens = int(metrics.n_tokens)
    return loss, float(metrics.kl_token_mean) * n_tokens if n_tokens else 0.0, n_tokens


def loss_denominator(config: DistillConfig, examples: list[Example]) -> float:
    """D of the whole step; loss weights have mean 1 over the set. Raises ConfigRefused where D would mislead."""
    weights = torch.tensor([e.weight for e in examples])
    n_tokens = sum(len(e.answer) for e in examples)
    try:
        return step_denominator(weights, n_tokens, config.reduction, config.denominator)
    except ValueError as error:
        raise ConfigRefused(str(error)) from error


def acknowledge(session: Session, batch: Batch, lesson: Lesson) -> None:
    """Tell the service that a step is done; late, its problems are already back in the pool, and the step stands."""
    outcomes = lesson.outcomes(session.progress.checkpoint_index) if session.config.report_outcomes else []
    try:
        session.client.acknowledge(batch.batch_id, outcomes)
    except BatchExpired as error:
        log.warning("step %d was trained, but too late for the service: %s", batch.step, error.detail)


def start_stage(session: Session) -> None:
    """Hand over the weights at the end of a stage and, if more steps follow, wait until they are measured."""
    publish(session)
    config, total = session.config, count_steps(session.curriculum.schedule)
    if config.wait_for_measurement and session.progress.step != total:
        save(session)  # the wait may be long
        index = session.progress.checkpoint_index
        stages.wait_until_measured(session.client, session.curriculum.measurement_id, index, session.patience)


def publish(session: Session) -> None:
    """Export the weights and register them, once a step; after a crash, doing it again finds what is there."""
    progress, student = session.progress, session.curriculum.student
    if progress.step == progress.published_step:
        return
    folder = checkpoint.export(session.student, session.tokenizer, session.config.out, progress.step, session.dtype)
    body = CheckpointCreate(
        uri=str(folder), parent_index=progress.checkpoint_index, run_id=session.run_id, step=progress.step
    )
    made = session.client.register_checkpoint(student, body, key=f"{session.run_id}:ckpt:{progress.step}")
    session.progress = replace(progress, checkpoint_index=made.index, published_step=progress.step)
    log.info("checkpoint %d of %s: %s", made.index, student, folder)


def save(session: Session) -> None:
    """Make this step the one to resume from."""
    checkpoint.save_state(session.config.out, session.student, session.optimizer, session.progress)
    session.saved_step = session.progress.step


def step_seed(config: DistillConfig, step: int) -> int:
    """The seed of a step's randomness; a step done again draws the same."""
    digest = hashlib.sha256(f"{config.seed}:{config.run_name}:{step}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


@contextlib.contextmanager
def opened(config: DistillConfig, client: Client, stop: Stop, watch: Watch) -> Iterator[Session]:
    """Everything a run needs, loaded, and put where the run was left; freed at the end."""
    device = model.pick_device(config.device)
    curriculum = client.curriculum(config.curriculum_id)
    profile = client.profile(curriculum.profile_id)
    policy = client.problem_set(curriculum.problem_set).policy
    tokenizer = model.load_tokenizer(config.student)
    teachers = Teachers(config, profile, tokenizer)
    student = model.load_model(config.student, torch.float32, device)
    model.check_projection(student, config.student)
    record = open_run(config, client, curriculum)
    config = config.model_copy(update={"dtype": precision.resolved(config.dtype, device.type)})
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    progress = checkpoint.load_state(config.out, student, optimizer) or Progress(0, record.base_index)
    if progress.step:
        log.warning("resuming run %s at step %d", config.run_name, progress.step)
    teachers.load(device, model.DTYPES[config.dtype])
    recorder = Recorder(client, record.run_id, config.out, progress.step)
    with asyncio.Runner() as runner, Judge(runner, profile, policy) as judge:
        library = Library(client, teachers, judge, runner, partial(make_writer, config))
        lessons = Lessons(config, profile, student, tokenizer, teachers, library, judge)
        with contextlib.closing(library), contextlib.closing(teachers):
            yield Session(
                config, client, curriculum, profile, record.run_id, student, tokenizer, optimizer, lessons, recorder,
                progress, Patience(config.wait_s, stop), watch, progress.step,
            )  # fmt: skip


def report(session: Session, first_step: int) -> dict[str, Any]:
    """What a finished run says: its stages, its checkpoint, and where things lie."""
    return {
        "run_id": session.run_id,
        "curriculum_id": session.curriculum.curriculum_id,
        "n_steps": session.progress.step,
        "resumed_at": first_step or None,
        "stages": session.recorder.summary(),
        "checkpoint_index": session.progress.checkpoint_index,
        "out": str(session.config.out.resolve()),
    }


def _say_failed(session: Session) -> None:
    with contextlib.suppress(PacedError):  # the first error is the one to show
        session.client.update_run(session.run_id, RunState.FAILED)
