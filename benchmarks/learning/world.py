"""What all arms of a seed share: pool, hold-out, the teacher's texts, and the first measurement of the pool."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from app.flow.estimates.columns import FloatArray, IntArray
from benchmarks.known import Known
from benchmarks.learning import models
from benchmarks.learning.mixes import THIRDS, choose, thirds
from benchmarks.learning.settings import Settings
from benchmarks.learning.skills import END, KEPT, TRAINED, WIDTH, Problem, encode, is_right, make_problem
from worker.distill.generate import Generator
from worker.rollout.engine import Sampling

WRITTEN = 512  # answers at a time
MIN_LENGTH, KEPT_LENGTHS = 2, (2, 5)


@dataclass(frozen=True, slots=True)
class World:
    """Aligned with `pool`: the teacher's texts, and how many of the student's first answers were right."""

    pool: list[Problem]
    held_out: list[list[Problem]]  # of each third
    kept: list[Problem]  # of skills that the pool never asks for
    texts: list[list[int]]
    n_passed: FloatArray
    n_tokens_measured: int
    start: dict[str, float]  # exact pass rates of student and teacher, by third and on `kept`

    @property
    def skills(self) -> IntArray:
        """The number of each problem's skill."""
        return np.array([TRAINED.index(problem.skill) for problem in self.pool])

    def known(self, n_answers: int, *, is_measured: bool) -> Known:
        """The pool as the service sees it: measured once, all of it, or not at all."""
        known = Known(self.skills, len(TRAINED))
        if is_measured:
            rows = np.arange(len(self.pool))
            known.count(rows, np.ones(len(rows), np.bool_), self.n_passed, n_answers, 0)
        return known


def make_world(settings: Settings, seed: int, student: Any, teacher: Any) -> World:
    """The world of a seed; the same however often it is made."""
    rng = np.random.default_rng([seed, 1])
    torch.manual_seed(seed)
    candidates = make_candidates(settings.n_candidates, rng)
    ours, theirs = models.pass_rates(student, candidates), models.pass_rates(teacher, candidates)
    sizes = settings.mix.sizes(settings.n_pool)
    chosen = choose(thirds(ours, theirs, settings.mix), [n + settings.n_held_out for n in sizes], rng)
    rows = np.concatenate([third[:n] for third, n in zip(chosen, sizes, strict=True)])
    held_out = [third[n:] for third, n in zip(chosen, sizes, strict=True)]
    pool = [candidates[row] for row in rows.tolist()]
    kept = _kept(settings.n_held_out, rng)
    texts = [text for (text,) in write(teacher, pool, 1)]
    answers = write(student, pool, settings.n_answers)
    start = {
        name: round(float(rate), 4)
        for i, third in enumerate(THIRDS)
        for name, rate in (
            (f"student_{third}", ours[held_out[i]].mean()),
            (f"teacher_{third}", theirs[held_out[i]].mean()),
        )
    }
    start |= {
        f"{name}_kept": round(float(models.pass_rates(model, kept).mean()), 4)
        for name, model in (("student", student), ("teacher", teacher))
    }
    return World(
        pool=pool,
        held_out=[[candidates[row] for row in third.tolist()] for third in held_out],
        kept=kept,
        texts=texts,
        n_passed=n_right(pool, answers),
        n_tokens_measured=n_tokens(answers),
        start=start,
    )


def write(model: Any, problems: Sequence[Problem], n: int) -> list[list[list[int]]]:
    """`n` answers of a model to each problem at temperature 1, as token ids; draws from torch's global generator."""
    sampling = Sampling(n=n, temperature=1.0, top_p=1.0, top_k=0, max_tokens=WIDTH + 2, stop=())
    prompts = [encode(problem.prompt) for problem in problems]
    answers = Generator(model, None, [END], WRITTEN).answers(prompts, sampling)
    return [[answer.token_ids for answer in group] for group in answers]


def n_right(problems: Sequence[Problem], answers: Sequence[Sequence[Sequence[int]]]) -> FloatArray:
    """How many answers of each problem are right."""
    groups = zip(problems, answers, strict=True)
    return np.array([sum(is_right(problem, ids) for ids in group) for problem, group in groups], np.float64)


def n_tokens(answers: Sequence[Sequence[Sequence[int]]]) -> int:
    """Tokens written, end tokens included."""
    return sum(len(ids) for group in answers for ids in group)


def make_candidates(n: int, rng: np.random.Generator) -> list[Problem]:
    """Distinct problems of the skills that are trained; short ones are few, and so are their candidates."""
    skills, lengths = rng.choice(list(TRAINED), n), rng.integers(MIN_LENGTH, WIDTH + 1, n)
    made = (make_problem(str(skill), int(length), rng) for skill, length in zip(skills, lengths, strict=True))
    return list(dict.fromkeys(made))


def _kept(n: int, rng: np.random.Generator) -> list[Problem]:
    skills, lengths = rng.choice(list(KEPT), n), rng.integers(*KEPT_LENGTHS, n)
    return [make_problem(str(skill), int(length), rng) for skill, length in zip(skills, lengths, strict=True)]
