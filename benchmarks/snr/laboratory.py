"""Gradients of the learning laboratory's student, by exact pass rate."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from app.flow.estimates.columns import FloatArray, IntArray
from benchmarks.learning import models, small_settings
from benchmarks.learning.mixes import TEACHER_LOW
from benchmarks.learning.settings import Settings
from benchmarks.learning.skills import encode
from benchmarks.learning.trial import weighted_loss
from benchmarks.learning.world import Problem, make_candidates, write
from benchmarks.snr.kernels import Groups, Projector, grouped
from worker.distill.data import Example

DIVERGENCES = ("forward_kl", "reverse_kl")


def groups(small: bool) -> Iterator[tuple[str, str, Groups]]:
    """Both divergences, on problems that the teacher can do and on those that it cannot too."""
    settings = small_settings() if small else Settings()
    n_each, rng = (24 if small else 120), np.random.default_rng(0)
    teacher, student = models.load(settings.teacher), models.load(settings.student)
    candidates = make_candidates(2 * settings.n_candidates, rng)
    ours, theirs = models.pass_rates(student, candidates), models.pass_rates(teacher, candidates)
    for pool, is_in in (("teacher_right", theirs >= TEACHER_LOW), ("all", np.ones(len(ours), np.bool_))):
        chosen = grouped(ours, np.flatnonzero(is_in), n_each, rng)
        for divergence in DIVERGENCES:
            yield pool, divergence, _gradients(student, teacher, candidates, ours, chosen, divergence)


def _gradients(
    student: Any, teacher: Any, candidates: list[Problem], rates: FloatArray, chosen: list[IntArray], divergence: str
) -> Groups:
    parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
    project = Projector(sum(parameter.numel() for parameter in parameters))
    writer = student if divergence == "reverse_kl" else teacher
    torch.manual_seed(0)
    found = []
    for rows in chosen:
        problems = [candidates[row] for row in rows.tolist()]
        gradients = []
        for problem, (text,) in zip(problems, write(writer, problems, 1), strict=True):
            prompt = encode(problem.prompt)
            loss = weighted_loss(student, teacher, [Example(0, prompt, prompt, text, 1.0)], 1.0, divergence)
            gradient = torch.autograd.grad(loss, parameters)
            gradients.append(project(torch.cat([part.flatten() for part in gradient])))
        found.append(np.stack(gradients))
    return Groups(found, [rates[rows] for rows in chosen])
