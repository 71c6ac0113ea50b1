"""Estimators on real answers: a distillation of the demo's model, measured at each of its checkpoints, replayed.

The demo's parts run as processes: first the trainer, which registers a checkpoint every few steps, then one rollout
worker with vLLM, which measures the problem set at the first checkpoint and a share of it at each later one, a quarter
chosen uniformly and the others those measured longest ago, as in a run that does not wait. Then each group of answers
is forecast, by every estimator, from what was known before it (`paced replay`).
"""

import asyncio
import dataclasses
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.progress import Progress

from app.db.engine import Database
from app.flow.estimates.replay import ReplayStore, Scores
from app.flow.rollouts.measurements import measurement_number
from app.settings import Settings
from demo.flow import (
    OWN_PROBLEMS,
    PROBLEM_SET,
    Plan,
    World,
    make_progress,
    prepare,
    start_service,
    start_trainer,
    start_worker,
    training_run,
    wait_until_measured,
)
from demo.processes import Children
from paced import Client, wire

POLL_S = 1.0
REPLAYED = "replayed"
SHARE = 0.35  # of the problems, at each checkpoint but the first
N_ROLLOUTS = 4  # half the usual: twice the groups in the same time


def run(small: bool) -> dict[str, Any]:
    """Train, measure, replay; the figures are log losses a group, lower is better."""
    with tempfile.TemporaryDirectory(prefix="paced-replay-") as folder:
        plan = Plan(
            data=Path(folder),
            problems=OWN_PROBLEMS,
            port=0,
            n_per_kind=6 if small else 80,
            forward_steps=4 if small else 30,
            reverse_steps=2,
            batch_size=4 if small else 16,
            learning_rate=5e-5,
            reverse_learning_rate=2e-5,
        )
        every = 2 if small else 5
        measurement_id, n_checkpoints = make_log(plan, every)
        found = asyncio.run(score(plan.data / "service", measurement_id))
    figures = {f"log_loss_{score.estimator}": round(score.log_loss, 4) for score in found.scores}
    best, *_ = sorted(found.scores, key=lambda score: score.log_loss)
    return {
        "settings": {"n_per_kind": plan.n_per_kind, "forward_steps": plan.forward_steps, "checkpoint_every": every},
        "rows": [dataclasses.asdict(score) for score in found.scores],
        "figures": {**figures, "best": best.estimator, "n_groups": best.n_groups, "n_checkpoints": n_checkpoints},
    }


def make_log(plan: Plan, every: int) -> tuple[str, int]:
    """Train with a checkpoint every few steps, then measure each; returns the measurement and how many there are."""
    with Children(plan.data / "logs") as children, make_progress() as progress:
        client = start_service(plan.data / "service", plan.port, children)
        world = prepare(plan, client, lambda line: print(line, file=sys.stderr, flush=True))
        checkpoints = _train(plan, client, children, world, progress, every)
        client.create_student(wire.StudentCreate(name=REPLAYED))
        profile = client.create_profile(wire.ProfileCreate(temperature=0.6, max_tokens=16, is_truncated_fail=True))
        body = wire.MeasurementCreate(
            student=REPLAYED, problem_set=PROBLEM_SET, profile_id=profile.profile_id, n_rollouts=N_ROLLOUTS
        )
        measurement = client.create_measurement(body)
        for checkpoint in checkpoints:
            body_of = wire.CheckpointCreate(uri=checkpoint.uri, run_id=checkpoint.run_id, step=checkpoint.step)
            client.register_checkpoint(REPLAYED, body_of, key=str(checkpoint.index))
            if checkpoint.index == 0:
                start_worker(client, children, world, student=REPLAYED)
            what = f"measuring checkpoint {checkpoint.index} of {len(checkpoints) - 1}"
            share = 1.0 if checkpoint.index == 0 else SHARE
            wait_until_measured(client, children, measurement.measurement_id, progress, what, share)
        return measurement.measurement_id, len(checkpoints)


def _train(
    plan: Plan, client: Client, children: Children, world: World, progress: Progress, every: int
) -> list[wire.Checkpoint]:
    more = ("--checkpoint-every", str(every), "--no-wait-for-measurement")
    start_trainer(plan, client, children, world, *more)
    task = progress.add_task("distilling", total=plan.n_steps)
    while children.is_running("distill"):
        run = training_run(client, world)
        progress.update(task, completed=0 if run is None or run.last_step is None else run.last_step + 1)
        time.sleep(POLL_S)
    children.check("distill")
    return list(client.checkpoints(world.curriculum.student))


async def score(data: Path, measurement_id: str) -> Scores:
    """Every estimator on the log of one measurement."""
    async with Database(Settings(data=data).database_url) as db:
        return await ReplayStore(db).score(measurement_number(measurement_id))
