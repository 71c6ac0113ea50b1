"""The training loop, to be read from top to bottom.

A step is a batch of the service, one or more micro-batches on each process, one AdamW update. Left out on purpose:
pipeline and tensor parallelism, several machines' shared disks (the first process writes the folder, the others read
only the models), checkpoint averaging, a teacher's forward that overlaps the student's.

A step in order: draw (and draw the next one meanwhile), update, record, acknowledge, save if due. Killed anywhere, the
run resumes from the saved state and does the steps since then again. Their batches are durable and come back under the
same key `run_id:step`, acknowledged or not, and a step draws its randomness from the run's seed and its number: the
weights are those of every batch once. Since acknowledging goes before saving, no batch of a saved step is left open.

With several processes all run this loop, each on its share of the batch. They add up gradients under one denominator,
so that a step is that of one process; the first one speaks for all of them.
"""

import contextlib
import hashlib
import logging
import time
from dataclasses import replace
from typing import Any

import torch

from paced.client import Client
from paced.errors import BatchExpired, PacedError
from paced.losses import KLSettings, distillation_loss, step_denominator
from paced.stream import count_steps
from paced.wire import Batch, CheckpointCreate, CurriculumUpdate, Outcome, RunState, Stage
from worker.distill import checkpoint, endings, model, stages
from worker.distill.config import DistillConfig
from worker.distill.data import Example, lay_out, micro_batches, pad
from worker.distill.errors import ConfigRefused, DistillError, Interrupted, TeacherSilent, WaitedTooLong
from worker.distill.lessons import Lesson
from worker.distill.metrics import batch_metrics, pooled
from worker.distill.ranks import accumulating, minded, whole
from worker.distill.rates import check_rates, learning_rate
from worker.distill.runs import check_alone
from worker.distill.session import Session, Watch, opened
from worker.distill.stages import Stop

AHEAD_FROM = 8  # batches that a problem set must hold, so that drawing one ahead leaves the next draw its choice

log = logging.getLogger(__name__)


def train(config: DistillConfig, client: Client, stop: Stop, watch: Watch) -> dict[str, Any]:
    """Run a distillation to the end of its schedule, resuming it if its folder holds a state; returns a report.

    The report is the first rank's; others return what they know of it. Raises DistillError and PacedError; on
    Interrupted the state is saved.
    """
    with opened(config, client, stop, watch) as session:
        first_step = session.progress.step
        try:
            with minded(session.ranks.n_ranks):
                run_schedule(session)
        except Interrupted as error:
            save(session)
            message = f"stopped before step {session.progress.step}; the same command resumes there"
            raise Interrupted(message, error.signal_number) from error
        except Exception as error:
            is_alone = session.ranks.n_ranks == 1  # else others are somewhere else, and saving needs all
            if isinstance(error, WaitedTooLong) or (isinstance(error, TeacherSilent) and is_alone):
                save(session)
            _say_failed(session)
            if isinstance(error, torch.OutOfMemoryError):
                raise DistillError(f"{error}. Lower --micro-batch-size; the step stays the same") from error
            raise
        session.ranks.from_first(lambda: client.update_run(session.run_id, RunState.FINISHED))
        return report(session, first_step)


def run_schedule(session: Session) -> None:
    """Every step from the saved one to the end of the schedule, with checkpoints at the ends of stages."""
    config, curriculum = session.config, session.curriculum
    check_rates(config, curriculum.schedule)
    if config.stage_ends != "steps":
        session.ranks.from_first(lambda: check_alone(session.client, curriculum.curriculum_id, session.run_id))
    if config.wait_for_measurement:
        stages.wait_until_known(session.client, curriculum.measurement_id, session.patience)
    while not is_last_step(session):
        session.patience.check()
        step = session.progress.step
        if stages.is_stage_start(session.curriculum.schedule, step):
            start_stage(session)
        elif is_checkpoint(config, step):
            publish(session)
            if is_stage_over(session):
                start_stage(session)
        batch = session.batches.at(step)
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
    started, ranks = time.monotonic(), session.ranks
    if may_look_ahead(session, step + 1):
        session.batches.look_ahead(step + 1)
    share = ranks.share(batch)
    seed(session, step)
    lesson = session.lessons.of(share)
    updated = update(session, lesson, batch.stage, step)
    index = session.progress.checkpoint_index
    told = ranks.gathered((len(share.problem_id), lesson.metrics, lesson.outcomes(index)))
    values = {**batch_metrics(batch), **pooled([(n, metrics) for n, metrics, _ in told]), **updated}
    values["duration_s"] = time.monotonic() - started
    ranks.from_first(lambda: tell(session, batch, values, [one for *_, outcomes in told for one in outcomes]))
    session.progress = replace(session.progress, step=step + 1)
    if session.progress.step % session.config.save_every == 0:
        save(session)
    if ranks.is_first:
        session.watch(step, count_steps(session.curriculum.schedule), values)


def update(session: Session, lesson: Lesson, stage: Stage, step: int) -> dict[str, float]:
    """One optimiser step on the weighted KL of all ranks' lessons; nothing moves if they are empty."""
    config, ranks = session.config, session.ranks
    denominator = loss_denominator(config, lesson.examples)
    if denominator <= 0:
        return {"n_sequences": 0}
    rate = learning_rate(config, session.curriculum.schedule, step)
    for group in session.optimizer.param_groups:
        group["lr"] = rate
    seed(session, step)  # writing text may have drawn from it
    loss, kl_sum, n_tokens = accumulate(session, lesson.examples, stage, denominator)
    n_sequences = sum(ranks.gathered(len(lesson.examples)))
    norm = float(whole(torch.nn.utils.clip_grad_norm_(session.student.parameters(), config.clip_norm)))
    if not torch.isfinite(torch.tensor([loss, norm])).all():
        raise DistillError(
            f"step {step}: the loss is {loss} and its gradient {norm}; the state of step {max(session.saved_step, 0)} "
            "is kept. Begin a run with a lower learning rate, or with dtype float32"
        )
    torch.manual_seed(step_seed(config, step))  # where weights are rounded by chance, all ranks round alike
    session.optimizer.step()
    return {
        "loss": loss,
        "kl_per_token": kl_sum / max(1, n_tokens),
        "grad_norm": norm,
        "learning_rate": rate,
        "n_sequences": n_sequences,
        "n_tokens": n_tokens,
        "answer_tokens_mean": n_tokens / max(1, n_sequences),
    }


def accumulate(
    session: Session, examples: list[Example], stage: Stage, denominator: float
) -> tuple[float, float, float]:
    """The gradient of all ranks' examples, micro-batch by micro-batch; their loss, summed KL in nats, scored tokens."""
    config, ranks, found = session.config, session.ranks, (0.0, 0.0, 0.0)
    session.optimizer.zero_grad(set_to_none=True)
    session.student.train()
    groups = list(micro_batches(examples, config.micro_batch_size, config.micro_batch_tokens, is_packed=config.packing))
    n_groups = max(ranks.gathered(len(groups)))  # every rank takes part in every forward and backward
    for number, group in enumerate([*groups, *[[]] * (n_groups - len(groups))], start=1):
        with accumulating(session.body, is_last=number == n_groups):
            part, kl_sum, n_tokens = group_loss(session, group, stage, denominator)
            part.backward()  # type: ignore[no-untyped-call]
        found = found[0] + part.item(), found[1] + kl_sum, found[2] + n_tokens
    session.student.eval()
    loss, kl_sum, n_scored = ranks.summed(found)
    return loss / ranks.n_ranks, kl_sum, n_scored  # gradients are averaged, and D is smaller for it


def group_loss(
    session: Session, examples: list[Example], stage: Stage, denominator: float
) -> tuple[torch.Tensor, float, int]:
    """A micro-batch's share of the step's loss, its summed KL in nats, and its scored tokens.

    Student and teacher each read the answers after their own prompts; the two are compared token by token. A rank that
    has no examples left runs one token through the student, for a loss of 0.
    """
    config, device = session.config, session.student.device
    if not examples:
        side = model.answer_projection(session.student, pad([[0]], [[0]], 0).to(device), session.dtype, session.body)
        total = side.hidden.sum() + side.weight_V_H.sum()
        return 0 * (total if side.bias_V is None else total + side.bias_V.sum()), 0.0, 0
    prompts, answers = [e.student_prompt for e in examples], [e.answer for e in examples]
    ours = lay_out(prompts, answers, is_packed=config.packing).to(device)
    with model.autocast(device, session.dtype):
        student_side = model.answer_projection(session.student, ours, session.dtype, session.body)
    teacher_side = session.lessons.teachers.side(examples, device)
    loss, metrics = distillation_loss(
        student_side,
        teacher_side,
        ours.mask_B_A,
        torch.tensor([e.weight for e in examples], device=device),
        denominator=denominator,
        reduction=config.reduction,
        settings=KLSettings(
            divergence=config.divergence_of(stage),
            temperature=config.temperature,
            chunk_size=config.chunk_tokens,
            vocab_size=model.words_compared(student_side, teacher_side, len(session.tokenizer)),
        ),
    )
    n_tokens = int(metrics.n_tokens)
    return loss, float(metrics.kl_token_mean) * n_tokens if n_tokens else 0.0, n_tokens


def loss_denominator(config: DistillConfig, examples: list[Example]) -> float:
    """D of the whole step, for gradients that are averaged over ranks; loss weights have mean 1 over the set.

    Raises ConfigRefused where D would mislead.
    """
    weights = torch.tensor([e.weight for e in examples])
    n_tokens = sum(len(e.answer) for e in examples)
    try:
        return step_denominator(weights, n_tokens, config.reduction, config.denominator)
    except ValueError as error:
        raise ConfigRefused(str(error)) from error


def tell(session: Session, batch: Batch, values: dict[str, float], outcomes: list[Outcome]) -> None:
    """Record a step and tell the service that it is done; late, its problems are in the pool again, and it stands."""
    assert session.recorder is not None
    session.recorder.record(batch.step, batch.stage, values)
    session.batches.settle()
    try:
        session.client.acknowledge(batch.batch_id, outcomes if session.config.report_outcomes else [])
    except BatchExpired as error:
        log.warning("step %d was trained, but too late for the service: %s", batch.step, error.detail)


def is_last_step(session: Session) -> bool:
    """Whether the run ends here even if its schedule goes on."""
    return session.config.max_steps is not None and session.progress.step >= session.config.max_steps


def is_checkpoint(config: DistillConfig, step: int) -> bool:
    """Whether the weights before this step are handed over."""
    return bool(config.checkpoint_every and step and step % config.checkpoint_every == 0)


def may_look_ahead(session: Session, step: int) -> bool:
    """Whether the batch of a step may be drawn before its turn: nothing is waited for or decided in between.

    Past `max_steps` too, so that a run which goes on later draws as one that was not cut in two.
    """
    config, schedule = session.config, session.curriculum.schedule
    is_free = not stages.is_stage_start(schedule, step) and not is_checkpoint(config, step)
    return config.draw_ahead and is_free and session.n_problems >= AHEAD_FROM * config.batch_size


def start_stage(session: Session) -> None:
    """Hand over the weights at the end of a stage and, if more steps follow, wait until they are measured."""
    publish(session)
    config, total = session.config, count_steps(session.curriculum.schedule)
    if config.wait_for_measurement and session.progress.step != total:
        save(session)  # the wait may be long
        index = session.progress.checkpoint_index
        stages.wait_until_measured(session.client, session.curriculum.measurement_id, index, session.patience)


def is_stage_over(session: Session) -> bool:
    """Decide at a checkpoint, once, whether the stage ends here; if so, the curriculum's schedule is made to say it.

    The state is saved before the schedule changes and before the step's batch is drawn, so that a run which is killed
    neither does a step again under another schedule nor decides anew on what is drawn already.
    """
    config, step, client = session.config, session.progress.step, session.client
    if config.stage_ends == "steps" or session.progress.decided_step == step:
        return False
    is_over = session.ranks.from_first(lambda: should_end(session))
    if is_over:
        save(session)
        update = CurriculumUpdate(schedule=endings.ended(session.curriculum.schedule, step))
        curriculum_id = session.curriculum.curriculum_id
        session.curriculum = session.ranks.from_first(lambda: client.update_curriculum(curriculum_id, update))
        log.info("the stage ends before step %d by %s", step, config.stage_ends)
    session.progress = replace(session.progress, decided_step=step)
    save(session)
    return is_over


def should_end(session: Session) -> bool:
    """Whether what is measured says so; never where a lost folder has the run do its steps again."""
    config, client, curriculum = session.config, session.client, session.curriculum
    step, last_step = session.progress.step, client.run(session.run_id).last_step
    if last_step is not None and last_step >= step:
        return False
    if config.stage_ends == "mastered":
        return endings.mastered_share(client.frontier(curriculum.measurement_id)) >= config.mastered_share
    _, first = stages.place(curriculum.schedule, step)
    checkpoints = list(client.checkpoints(curriculum.student))
    points = endings.of_stage(client.holdout(curriculum.measurement_id), checkpoints, session.run_id, first)
    return endings.has_plateaued(points, config.plateau_checkpoints)


def publish(session: Session) -> None:
    """Export the weights and register them, once a step; after a crash, doing it again finds what is there."""
    if session.progress.step == session.progress.published_step:
        return
    plain = None
    if session.ranks.is_first:
        plain = model.load_model(session.config.student, session.dtype, torch.device("cpu"))
    model.copy_weights(session.student, plain)
    session.progress = session.ranks.from_first(lambda: register(session, plain))


def register(session: Session, plain: Any) -> checkpoint.Progress:
    """Write the weights to a folder and make them a checkpoint of the student."""
    progress, student = session.progress, session.curriculum.student
    folder = checkpoint.export(plain, session.tokenizer, session.config.out, progress.step)
    body = CheckpointCreate(
        uri=str(folder), parent_index=progress.checkpoint_index, run_id=session.run_id, step=progress.step
    )
    place = hashlib.sha256(str(folder).encode()).hexdigest()[:8]  # a run whose folder was moved makes it anew
    made = session.client.register_checkpoint(student, body, key=f"{session.run_id}:ckpt:{progress.step}:{place}")
    log.info("checkpoint %d of %s: %s", made.index, student, folder)
    return replace(progress, checkpoint_index=made.index, published_step=progress.step)


def save(session: Session) -> None:
    """Make this step the one to resume from."""
    checkpoint.save_state(session.config.out, session.student, session.optimizer, session.progress, session.ranks)
    session.saved_step = session.progress.step


def seed(session: Session, step: int) -> None:
    """Begin a step's randomness, which is each rank's own."""
    torch.manual_seed(step_seed(session.config, step, session.ranks.rank))


def step_seed(config: DistillConfig, step: int, rank: int = 0) -> int:
    """The seed of a step's randomness; a step done again draws the same."""
    place = f"{step}/{rank}" if rank else f"{step}"
    digest = hashlib.sha256(f"{config.seed}:{config.run_name}:{place}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def report(session: Session, first_step: int) -> dict[str, Any]:
    """What a finished run says: its stages, its checkpoint, and where things lie."""
    return {
        "run_id": session.run_id,
        "curriculum_id": session.curriculum.curriculum_id,
        "n_steps": session.progress.step,
        "resumed_at": first_step or None,
        "stages": session.recorder.summary() if session.recorder is not None else [],
        "checkpoint_index": session.progress.checkpoint_index,
        "out": str(session.config.out.resolve()),
    }


def _say_failed(session: Session) -> None:
    if not session.ranks.is_first:
        return
    with contextlib.suppress(PacedError):  # the first error is the one to show
        session.client.update_run(session.run_id, RunState.FAILED)
