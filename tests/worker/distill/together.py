"""Several ranks of a trainer, each a process of its own, as a launcher starts them."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from paced import Client
from paced.wire import Stage
from tests.flow.processes import free_port
from tests.service import ADMIN_KEY
from tests.worker.distill.world import run
from worker.distill.config import DistillConfig

TIMEOUT_S = 240


def start(
    n_ranks: int, folder: Path, jobs: Mapping[str, Sequence[DistillConfig]], client: Client
) -> "list[subprocess.Popen[str]]":
    """Begin jobs of this module, one after the other, on ranks that find each other."""
    written = {job: [config.model_dump(mode="json") for config in configs] for job, configs in jobs.items()}
    (folder / "jobs.json").write_text(json.dumps(written))
    port, processes = free_port(), []
    for rank in range(n_ranks):
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": n_ranks, "MASTER_ADDR": "127.0.0.1"}
        access = {"PACED_URL": client.url, "PACED_KEY": ADMIN_KEY, "OMP_NUM_THREADS": "1", "MASTER_PORT": str(port)}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "tests.worker.distill.together", str(folder)],
                env={**os.environ, **access, **{name: str(value) for name, value in places.items()}},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return processes


def ended(processes: "Sequence[subprocess.Popen[str]]") -> list[tuple[int, str]]:
    """Exit code and output of each rank, by rank."""
    outputs = [process.communicate(timeout=TIMEOUT_S)[0] for process in processes]
    return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


def train_all(_: Path, configs: Sequence[DistillConfig], client: Client) -> None:
    """Run after run."""
    for config in configs:
        run(config, client)


def gradients(folder: Path, configs: Sequence[DistillConfig], _: Client) -> None:
    """The gradients of one step of `test_step`, once and with twice the weights."""
    from tests.worker.distill.test_step import EXAMPLES, heavier, make_session
    from worker.distill.model import layers
    from worker.distill.ranks import joined, spread, whole
    from worker.distill.train import accumulate, loss_denominator

    with joined(60) as ranks:
        for config in configs:
            session = make_session(config.student, Path(config.teacher), ranks=ranks, micro_batch_size=1)
            session.body = spread(session.body, layers(session.student), config.parallel, ranks)
            session.optimizer = torch.optim.AdamW(session.student.parameters())  # of the parts, where there are some
            for factor in (1, 2):
                mine = heavier(EXAMPLES, factor)[ranks.rank :: ranks.n_ranks]
                accumulate(session, mine, Stage.FORWARD_KL, loss_denominator(session.config, mine))
                found = [whole(p.grad) for p in session.student.parameters()]
                if ranks.is_first:
                    torch.save(found, folder / f"{config.parallel}-{factor}.pt")


JOBS: dict[str, Any] = {"train_all": train_all, "gradients": gradients}


def main(folder: str) -> None:
    torch.set_num_threads(1)
    with Client(retry_s=0.0) as client:
        for job, configs in json.loads((Path(folder) / "jobs.json").read_text()).items():
            JOBS[job](Path(folder), [DistillConfig(**one) for one in configs], client)


if __name__ == "__main__":
    main(*sys.argv[1:])
