"""Gradients of SmolLM2-135M-Instruct on arithmetic, by the trainer's own loss.

The problems, the service, the worker that measures them and the self teacher are those of the benchmark `arms`. A pass
rate is that of 8 answers, so of one answer's worth uncertain: groups are by the number of right ones, placed at
(k + 1/2)/(K + 1), since no right answer of 8 is no pass rate of 0. In forward KL the teacher's wrong texts are left
out, as in training.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from app.flow.estimates.columns import IntArray
from benchmarks import arms
from benchmarks.snr.kernels import LEAST, Groups, Projector
from demo.flow import TEACHING, start_service
from demo.model import smollm2_folder
from demo.processes import Children
from paced import wire
from worker.distill.config import DistillConfig
from worker.distill.data import Example
from worker.distill.session import Session, opened
from worker.distill.stages import Stop
from worker.distill.train import group_loss

POOL = "smollm2"
PLAN = arms.Plan(Path(".benchmarks/snr"), n_per_kind=40, holdout_share=0.0)
SMALL = replace(arms.SMALL, home=Path(".benchmarks/snr-small"), holdout_share=0.0)


def groups(small: bool) -> Iterator[tuple[str, str, Groups]]:
    """Both divergences, on problems of each number of right answers."""
    plan, n_each = (SMALL, 2 * LEAST) if small else (PLAN, 24)
    model = smollm2_folder(plan.home / "models").resolve()
    with Children(plan.home / "logs") as children, start_service(plan.home / "service", 0, children) as client:
        curriculum = arms.make(plan, client, model, "uniform", seed=0)
        with arms.worker(client, children, curriculum, model):
            arms.await_base(client, children, curriculum)
        passed = {e.problem_id: e.n_passed for e in client.estimates(curriculum.measurement_id, limit=1000)}
        config = DistillConfig(
            curriculum_id=curriculum.curriculum_id,
            student=model,
            run_name="snr",
            out=plan.home / "run",
            batch_size=len(passed),
            **TEACHING,
        )
        with opened(config, client, Stop(), lambda *_: None) as session:
            project = Projector(sum(parameter.numel() for parameter in session.student.parameters()))
            batch = chosen(client.draw_batch(curriculum.curriculum_id, len(passed), key="snr"), passed, n_each)
            for stage in (wire.Stage.FORWARD_KL, wire.Stage.REVERSE_KL):
                lesson = session.lessons.of(batch.model_copy(update={"stage": stage}))
                yield POOL, stage.value, gradients(session, lesson.examples, stage, passed, plan.n_rollouts, project)


def chosen(batch: wire.Batch, passed: dict[int, int], n_each: int) -> wire.Batch:
    """The batch with up to `n_each` problems of each number of right answers, and weights of 1."""
    assert batch.problems is not None
    found: list[wire.BatchProblem] = []
    for k in sorted(set(passed.values())):
        found += [problem for problem in batch.problems if passed[problem.problem_id] == k][:n_each]
    return batch.model_copy(update={"problems": found, "loss_weight": [1.0] * len(found)})


def gradients(
    session: Session,
    examples: list[Example],
    stage: wire.Stage,
    passed: dict[int, int],
    n_rollouts: int,
    project: Projector,
) -> Groups:
    """One gradient an example, projected, by the number of right answers."""
    parameters = list(session.student.parameters())
    found: list[np.ndarray] = []
    for example in examples:
        loss, *_ = group_loss(session, [example], stage, denominator=1.0)
        parts = torch.autograd.grad(loss, parameters)
        found.append(project(torch.cat([part.flatten() for part in parts])))
    k = np.array([passed[example.problem_id] for example in examples])
    places: list[IntArray] = [np.flatnonzero(k == each) for each in np.unique(k)]
    places = [group for group in places if len(group) >= LEAST]
    rates = (k + 0.5) / (n_rollouts + 1)
    return Groups([np.stack([found[i] for i in group]) for group in places], [rates[group] for group in places])
