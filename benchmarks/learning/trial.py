"""One arm with one seed: draw, train, measure again, until the tokens are spent; to be read from top to bottom."""

import copy
import datetime as dt
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from app.flow.batches.drawing import REST, Draw, Memory, draw
from app.flow.batches.law import Law
from benchmarks.known import Known
from benchmarks.learning.arms import Arm
from benchmarks.learning.mixes import THIRDS
from benchmarks.learning.models import pass_rates
from benchmarks.learning.settings import Settings
from benchmarks.learning.skills import END, encode
from benchmarks.learning.tokens import Spent, affordable, size, stage_at
from benchmarks.learning.world import World, n_right, n_tokens, write
from paced.losses import KLSettings, distillation_loss
from worker.distill.data import Example, pad
from worker.distill.model import answer_projection

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)  # nothing in quarantine, so that the time does not matter
CLIP_NORM = 1.0
N_WARM_UP = 10  # steps
MAX_DRAWN = 100  # for each sequence of an update


@dataclass
class Trial:
    """What a run holds while it trains."""

    settings: Settings
    arm: Arm
    seed: int
    world: World
    student: Any
    teacher: Any
    optimizer: torch.optim.Optimizer
    known: Known
    rng: np.random.Generator
    spent: Spent = field(default_factory=Spent)
    memory: Memory = field(default_factory=Memory)
    texts_read: set[int] = field(default_factory=set)
    n_steps: int = 0
    n_draws: int = 0


def run_trial(settings: Settings, arm: Arm, seed: int, world: World, student: Any, teacher: Any) -> dict[str, Any]:
    """Train a copy of the student; returns hold-out pass rates at each checkpoint, and what was spent."""
    trial = begin(settings, arm, seed, world, student, teacher)
    curve = [evaluate(trial)]
    for checkpoint in range(1, settings.n_checkpoints + 1):
        goal = settings.budget * checkpoint // settings.n_checkpoints
        while trial.spent.optimiser < goal and step(trial):
            pass
        curve.append(evaluate(trial))
        if arm.is_following and checkpoint < settings.n_checkpoints:
            measure(trial, checkpoint)
    return {"curve": curve, "spent": trial.spent.as_dict(), "n_steps": trial.n_steps}


def begin(settings: Settings, arm: Arm, seed: int, world: World, student: Any, teacher: Any) -> Trial:
    """A run before its first step, with a copy of the student."""
    torch.manual_seed(seed)
    student = copy.deepcopy(student)
    trial = Trial(
        settings=settings,
        arm=arm,
        seed=seed,
        world=world,
        student=student,
        teacher=teacher,
        optimizer=torch.optim.AdamW(student.parameters(), lr=settings.learning_rate, weight_decay=0.0),
        known=world.known(settings.n_answers, is_measured=arm.is_measured),
        rng=np.random.default_rng([seed, 2]),
    )
    trial.spent.measuring = world.n_tokens_measured if arm.is_measured else 0
    return trial


def step(trial: Trial) -> bool:
    """One update, on as many of the drawn problems as the budget still allows; False where none fits."""
    weights, n_drawn = draw_weights(trial)
    divergence = stage_at(trial.arm.stages, trial.spent.optimiser / trial.settings.budget)
    texts = _own_texts(trial, weights) if divergence == "reverse_kl" else _teacher_texts(trial, weights)
    examples = affordable(_examples(trial, weights, texts), trial.settings.budget - trial.spent.optimiser)
    if not examples:
        return False
    trial.spent.optimiser += sum(map(size, examples))
    trial.n_steps += 1
    _update(trial, examples, n_drawn, divergence)
    return True


def draw_weights(trial: Trial) -> tuple[list[tuple[int, float]], int]:
    """(row, loss weight) of an update's sequences, and how many were drawn for them.

    Draws of weight 0 are replaced by further draws, so that every arm's updates are of one size: else an arm whose
    weights are often 0 would make more and noisier updates of the same tokens.
    """
    found: list[tuple[int, float]] = []
    n_drawn, n_wanted = 0, trial.settings.batch_size
    while len(found) < n_wanted:
        batch = draw_batch(trial)
        is_complete = bool((batch.loss_weights > 0.0).all())
        for row, weight in zip(batch.ordinals.tolist(), batch.loss_weights.tolist(), strict=True):
            n_drawn += 1
            if weight > 0.0:
                found.append((row, weight))
            if len(found) == n_wanted:
                break
        if is_complete:
            break  # nothing to replace: a draw that falls short makes a smaller update, as it would in a trainer
        if n_drawn > MAX_DRAWN * n_wanted:
            raise RuntimeError(f"{len(found)} of {n_drawn} problems drawn have a weight: this arm cannot train")
    return found, n_drawn


def draw_batch(trial: Trial) -> Draw:
    """A batch as the service draws it."""
    trial.n_draws += 1
    with Law(trial.known.pool, trial.arm.rule, 0.0, NOW) as law:
        batch = draw(law, {REST: None}, trial.settings.batch_size, trial.seed, trial.n_draws, trial.memory)
    if len(batch.ordinals) == 0:
        raise RuntimeError(f"nothing can be drawn any more: {batch.shortfall}")
    return batch


def evaluate(trial: Trial) -> dict[str, Any]:
    """Exact pass rates on the hold-out, by third, and on the skills that the pool never asks for."""
    by_third = [float(pass_rates(trial.student, third).mean()) for third in trial.world.held_out]
    rates = {**dict(zip(THIRDS, by_third, strict=True)), "all": float(np.mean(by_third))}
    rates["kept"] = float(pass_rates(trial.student, trial.world.kept).mean())
    return {"tokens": trial.spent.optimiser, **{name: round(rate, 5) for name, rate in rates.items()}}


def measure(trial: Trial, checkpoint: int) -> None:
    """Let the student answer a share of the pool, and count what is right."""
    settings = trial.settings
    rows, is_audit = trial.known.due(round(settings.remeasured_share * len(trial.world.pool)), trial.rng)
    problems = [trial.world.pool[row] for row in rows.tolist()]
    answers = write(trial.student, problems, settings.n_answers)
    trial.spent.measuring += n_tokens(answers)
    trial.known.count(rows, is_audit, n_right(problems, answers), settings.n_answers, checkpoint)


def _teacher_texts(trial: Trial, weights: list[tuple[int, float]]) -> list[list[int]]:
    """Right or wrong; each is written once."""
    rows = [row for row, _ in weights]
    new = set(rows) - trial.texts_read
    trial.spent.teacher += sum(len(trial.world.texts[row]) for row in new)
    trial.texts_read |= new
    return [trial.world.texts[row] for row in rows]


def _own_texts(trial: Trial, weights: list[tuple[int, float]]) -> list[list[int]]:
    """The student's, of this moment."""
    answers = write(trial.student, [trial.world.pool[row] for row, _ in weights], 1)
    trial.spent.on_policy += n_tokens(answers)
    return [text for (text,) in answers]


def _examples(trial: Trial, weights: list[tuple[int, float]], texts: list[list[int]]) -> list[Example]:
    prompts = [encode(trial.world.pool[row].prompt) for row, _ in weights]
    drawn = zip(weights, prompts, texts, strict=True)
    return [Example(row, prompt, prompt, text, weight) for (row, weight), prompt, text in drawn]


def _update(trial: Trial, examples: list[Example], n_drawn: int, divergence: str) -> None:
    """One AdamW step on the weighted KL. Loss weights have mean 1 over the pool, so D is the size of the draw."""
    for group in trial.optimizer.param_groups:
        group["lr"] = trial.settings.learning_rate * min(1.0, trial.n_steps / N_WARM_UP)
    loss = weighted_loss(trial.student, trial.teacher, examples, float(n_drawn), divergence)
    trial.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(trial.student.parameters(), CLIP_NORM)
    trial.optimizer.step()


def weighted_loss(
    student: Any, teacher: Any, examples: list[Example], denominator: float, divergence: str
) -> torch.Tensor:
    """The exact weighted KL over the whole vocabulary, sequence means."""
    padded = pad([e.student_prompt for e in examples], [e.answer for e in examples], pad_id=END)
    with torch.no_grad():
        theirs = answer_projection(teacher, padded, torch.float32)
    loss, _ = distillation_loss(
        answer_projection(student, padded, torch.float32),
        theirs,
        padded.mask_B_A,
        torch.tensor([e.weight for e in examples]),
        denominator=denominator,
        settings=KLSettings(divergence=divergence),
    )
    return loss
