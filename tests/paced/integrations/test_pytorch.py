"""The PyTorch data set: workers, ranks, kills and resumes; each draw is consumed exactly once."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from paced import Client, wire
from paced.integrations import pytorch
from paced.integrations.pytorch import BatchStream, Draw
from tests.app.world import build
from tests.service import Service

N_KILLS, N_RANKS, N_STEPS = 5, 2, 240
pytestmark = [
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # torchdata 0.11 on torch 2.13
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more workers than cores, on purpose
]


def curriculum_of(client: Client, folder: Path, n_steps: int) -> wire.Curriculum:
    plan = [{"stage": "forward_kl", "steps": n_steps}]
    return build(client, folder, 400, holdout_share=0.0, schedule=plan)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_make_one_order(client: Client, tmp_path: Path, context: str) -> None:
    curriculum = curriculum_of(client, tmp_path, 9)
    stream = BatchStream(client, "main", "run", 8)
    loader = DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context=context)
    drawn = []
    for draw in loader:
        assert isinstance(draw, Draw)
        drawn.append(draw)
        stream.acknowledge(draw)
    assert [draw.position for draw in drawn] == list(range(9))
    assert all(len(list(draw.items())) == 8 for draw in drawn)
    assert stream.state_dict()["position"] == 9
    log = list(client.batches(curriculum.curriculum_id))
    assert {batch.batch_id for batch in log} == {draw.batch.batch_id for draw in drawn}
    assert {batch.state for batch in log} == {"acknowledged"}


@pytest.mark.parametrize("n_workers", [0, 3])
def test_a_stateful_loader_resumes_its_workers(client: Client, tmp_path: Path, n_workers: int) -> None:
    curriculum_of(client, tmp_path, 20)

    def loader() -> tuple[BatchStream, Any]:
        stream = BatchStream(client, "main", "run", 4)
        return stream, StatefulDataLoader(stream, batch_size=None, num_workers=n_workers)

    drawn: list[Draw] = []
    state = None
    for n_steps in (4, 5, 100):
        stream, made = loader()
        if state is not None:
            made.load_state_dict(state)
        for i, draw in enumerate(made, 1):
            drawn.append(draw)
            stream.acknowledge(draw)
            state = made.state_dict()
            if i == n_steps:
                break
        del made
    assert [draw.position for draw in drawn] == list(range(20))
    assert max(Counter(draw.batch.batch_id for draw in drawn).values()) == 1


def test_a_stateful_loader_needs_as_many_workers_as_before(client: Client, tmp_path: Path) -> None:
    curriculum_of(client, tmp_path, 20)
    made: Any = StatefulDataLoader(BatchStream(client, "main", "run", 4), batch_size=None, num_workers=2)
    next(iter(made))
    state = made.state_dict()
    del made
    stream = BatchStream(client, "main", "run", 4)
    workers = state["_snapshot"]["_worker_snapshots"].values()
    dataset = next(worker["dataset_state"] or worker["fetcher_state"]["dataset_iter_state"] for worker in workers)
    stream.load_state_dict(dataset)
    with pytest.raises(ValueError, match="the state is of 2 workers, the loader has 3"):
        next(iter(DataLoader(stream, batch_size=None, num_workers=3)))


def test_ranks_are_those_of_the_job(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curriculum_of(client, tmp_path, 20)
    assert BatchStream(client, "main", "run", 4).source.ranks.n_ranks == 1
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    ranks = BatchStream(client, "main", "run", 4).source.ranks
    assert (ranks.rank, ranks.n_ranks, ranks.mode) == (1, 3, "share")
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        assert pytorch._place() == (0, 1)
    finally:
        torch.distributed.destroy_process_group()


class Job:
    """The ranks of a training job as processes, each with 4 loader workers."""

    def __init__(self, url: str, folder: Path) -> None:
        self.files = [folder / f"rank-{rank}.json" for rank in range(N_RANKS)]
        self._command = [sys.executable, "-m", "tests.paced.integrations.trainer", url, "run"]
        self._log = folder / "trainers.log"
        self.ranks: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        for rank, file in enumerate(self.files):
            command = [*self._command, str(rank), str(N_RANKS), str(file)]
            with self._log.open("ab") as log:
                self.ranks.append(
                    subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
                )

    def kill(self) -> None:
        """kill -9 of every rank and its workers."""
        for rank in self.ranks:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(rank.pid, signal.SIGKILL)
            rank.wait()
        self.ranks.clear()

    def wait(self, timeout_s: float) -> None:
        for rank in self.ranks:
            assert rank.wait(timeout_s) == 0, self._log.read_text()[-3000:]

    def trained(self, rank: int) -> list[list[Any]]:
        file = self.files[rank]
        found: list[list[Any]] = json.loads(file.read_text())["trained"] if file.exists() else []
        return found

    def wait_for(self, n_steps: int) -> None:
        deadline = time.monotonic() + 90
        while min(len(self.trained(rank)) for rank in range(N_RANKS)) < n_steps:
            assert all(rank.poll() is None for rank in self.ranks), self._log.read_text()[-3000:]
            assert time.monotonic() < deadline, self._log.read_text()[-3000:]
            time.sleep(0.02)


@pytest.mark.slow
def test_killed_and_resumed_each_draw_is_consumed_once(service: Service, client: Client, tmp_path: Path) -> None:
    curriculum = curriculum_of(client, tmp_path, N_STEPS)
    job, chance = Job(service.url, tmp_path), random.Random(0)
    for i in range(N_KILLS):
        job.start()
        try:
            job.wait_for((i + 1) * N_STEPS // (N_KILLS + 2))
            time.sleep(chance.uniform(0, 0.3))
        finally:
            job.kill()
    n_at_kill = len(job.trained(0))
    assert n_at_kill < N_STEPS
    job.start()
    try:
        job.wait(120)
    finally:
        job.kill()

    log = {batch.batch_id: batch for batch in client.batches(curriculum.curriculum_id, limit=1000)}
    assert len(log) == N_STEPS, "a draw was made for each step, and for nothing else"
    assert {batch.state for batch in log.values()} == {"acknowledged"}
    by_rank = [job.trained(rank) for rank in range(N_RANKS)]
    for trained in by_rank:
        assert sorted(batch_id for _, batch_id, _ in trained) == sorted(log), "each draw once, none skipped"
        assert [position for position, _, _ in trained] == sorted({position for position, _, _ in trained})
    shares = [{batch_id: problem_ids for _, batch_id, problem_ids in trained} for trained in by_rank]
    for batch_id, batch in log.items():
        assert sorted(shares[0][batch_id] + shares[1][batch_id]) == sorted(batch.problem_id)
