"""kill -9 at ten random steps: the run goes on as if nothing had been."""

import multiprocessing
import random
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from paced import Client
from tests.service import ADMIN_KEY
from tests.worker.distill.test_train import run_batches, weights
from tests.worker.distill.world import losses, make_config, make_curriculum, run
from worker.distill.config import DistillConfig

N_STEPS, N_KILLS = 30, 10
SCHEDULE = [{"stage": "forward_kl", "steps": 16}, {"stage": "reverse_kl", "steps": 14}]
PRELOADED = ["worker.distill.train", "transformers.models.llama.modeling_llama", "tests.worker.distill.world"]


def train_alone(url: str, settings: str) -> None:
    import torch

    torch.set_num_threads(1)
    with Client(url, ADMIN_KEY, retry_s=0.0) as client:
        run(DistillConfig.model_validate_json(settings), client)


def n_lines(file: Path) -> int:
    return file.read_text().count("\n") if file.exists() else 0


def killed_at(process: BaseProcess, metrics: Path, step: int) -> bool:
    """Kill a trainer once it has recorded a step; False if it ended first."""
    process.start()
    while n_lines(metrics) <= step and process.is_alive():
        time.sleep(0.002)
    process.kill()
    process.join()
    return process.exitcode == -9


@pytest.mark.slow
def test_killed_at_ten_random_steps_a_run_has_the_losses_of_one_that_was_not(
    sqlite_client: Client, student: Path, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("forkserver")  # children begin with everything imported
    context.set_forkserver_preload(PRELOADED)
    curricula = [
        make_curriculum(sqlite_client, tmp_path, schedule=SCHEDULE, preset="uniform", suffix=suffix)
        for suffix in ("", "-killed")
    ]
    straight, killed = (
        make_config(made, student, tmp_path / made.name, save_every=3, checkpoint_every=7) for made in curricula
    )
    run(straight, sqlite_client)

    def child() -> BaseProcess:
        return context.Process(target=train_alone, args=(sqlite_client.url, killed.model_dump_json()))

    steps: Sequence[int] = sorted(random.Random(7).sample(range(N_STEPS - 2), N_KILLS))
    n_killed = sum(killed_at(child(), killed.out / "metrics.jsonl", step) for step in steps)
    last = child()
    last.start()
    last.join(180)
    assert last.exitcode == 0
    assert n_killed == N_KILLS
    assert losses(killed.out) == pytest.approx(losses(straight.out), abs=1e-6)
    for name, tensor in weights(straight.out).items():
        assert float((weights(killed.out)[name] - tensor).abs().max()) <= 1e-6
    batches = run_batches(sqlite_client, curricula[1])
    assert [b.step for b in batches] == list(range(N_STEPS))
    assert {b.state for b in batches} == {"acknowledged"}
