"""Estimators on real answers: a distillation of the demo's model, measured while it trains, replayed.

The demo's parts run as processes: the service on SQLite, one rollout worker with vLLM, the trainer. The trainer
registers a checkpoint every few steps and does not wait; the worker measures what is due as far as it gets, as in a
real run. Then each group of answers is forecast, by every estimator, from what was known before it (`paced replay`).
"""

import asyncio
import dataclasses
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from app.db.engine import Database
from app.flow.estimates.replay import ReplayStore, Scores
from app.flow.rollouts.measurements import measurement_number
from app.settings import Settings
from demo.flow import (
    OWN_PROBLEMS,
    Plan,
    make_progress,
    prepare,
    start_service,
    start_trainer,
    start_worker,
    training_run,
    wait_until_measured,
)
from demo.processes import Children

POLL_S = 1.0


def run(small: bool) -> dict[str, Any]:
    """Train, measure, replay; the figures are log losses a group, lower is better."""
    with tempfile.TemporaryDirectory(prefix="paced-replay-") as folder:
        plan = Plan(
            data=Path(folder),
            problems=OWN_PROBLEMS,
            port=0,
            n_per_kind=6 if small else 80,
            forward_steps=4 if small else 70,
            reverse_steps=2,
            batch_size=4 if small else 16,
            learning_rate=5e-5,
            reverse_learning_rate=2e-5,
        )
        every = 2 if small else 10
        measurement_id, n_checkpoints = _train(plan, every)
        found = asyncio.run(_score(plan.data / "service", measurement_id))
    figures = {f"log_loss_{score.estimator}": round(score.log_loss, 4) for score in found.scores}
    best, *_ = sorted(found.scores, key=lambda score: score.log_loss)
    return {
        "settings": {"n_per_kind": plan.n_per_kind, "forward_steps": plan.forward_steps, "checkpoint_every": every},
        "rows": [dataclasses.asdict(score) for score in found.scores],
        "figures": {**figures, "best": best.estimator, "n_groups": best.n_groups, "n_checkpoints": n_checkpoints},
    }


def _train(plan: Plan, every: int) -> tuple[str, int]:
    """Measure once, train with checkpoints, let the worker measure as far as it gets; returns what to replay."""
    with Children(plan.data / "logs") as children, make_progress() as progress:
        client = start_service(plan, children)
        world = prepare(plan, client, lambda line: print(line, file=sys.stderr, flush=True))
        start_worker(client, children, world)
        wait_until_measured(client, children, world, progress, "measuring checkpoint 0")
        start_trainer(plan, client, children, world, "--checkpoint-every", str(every))
        task = progress.add_task("distilling", total=plan.n_steps)
        while children.is_running("distill"):
            run = training_run(client, world)
            progress.update(task, completed=0 if run is None or run.last_step is None else run.last_step + 1)
            children.check("rollout")
            time.sleep(POLL_S)
        children.check("distill")
        latest = client.student(world.curriculum.student).latest_checkpoint
        return world.curriculum.measurement_id, 0 if latest is None else latest.index + 1


async def _score(data: Path, measurement_id: str) -> Scores:
    async with Database(Settings(data=data).database_url) as db:
        return await ReplayStore(db).score(measurement_number(measurement_id))
