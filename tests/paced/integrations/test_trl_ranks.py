"""TRL's own trainers on two processes: each has its share of a draw, it is reported once, the loss is one loss."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from paced import Client, wire
from tests.app.world import build, measure
from tests.paced.integrations.ranks import N_GENERATIONS, N_MICRO_STEPS, N_RANKS, N_STEPS, SIZE
from tests.paced.integrations.test_trl_distillation import dense_kl
from tests.paced.integrations.tiny import tiny_model
from tests.service import serve

ROOT = Path(__file__).resolve().parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # TRL, datasets and accelerate warn of each other


@dataclass(frozen=True)
class Runs:
    """Two curricula, what each rank wrote, and where the models are."""

    client: Client
    grpo: wire.Curriculum
    distil: wire.Curriculum
    ranks: list[dict[str, Any]]
    folder: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("ranks")
    tiny_model(folder / "model")
    tiny_model(folder / "teacher", seed=1, spread=0.3)
    with serve(folder / "data", None) as service, service.client() as client:
        grpo = build(client, folder, 40, suffix="-grpo", holdout_share=0.2)
        distil = build(client, folder, 40, suffix="-distil", mode="reweight", holdout_share=0.0, seed=3)
        measure(client, distil.student)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={N_RANKS}"]
        what = ["-m", "tests.paced.integrations.ranks", service.url, str(folder / "model"), str(folder)]
        done = subprocess.run([*torchrun, *what], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
        ranks = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(N_RANKS)]
        yield Runs(client, grpo, distil, ranks, folder)


def test_ranks_share_each_draw_and_report_it_once(runs: Runs) -> None:
    client, curriculum, ranks = runs.client, runs.grpo, [rank["grpo"] for rank in runs.ranks]
    log = list(client.batches(curriculum.curriculum_id))
    assert [(batch.step, batch.state) for batch in log] == [(step, "acknowledged") for step in range(N_STEPS)]
    for step, batch in enumerate(log):
        shares = [[problem_id for problem_id, _ in rank[step]] for rank in ranks]
        half = SIZE // N_RANKS
        expected = [batch.problem_id[rank * half : (rank + 1) * half] for rank in range(N_RANKS)]
        assert shares == [[i for i in part for _ in range(N_GENERATIONS)] for part in expected]

    passed: Counter[int] = Counter()
    for problem_id, value in (judged for rank in ranks for call in rank for judged in call):
        passed[problem_id] += int(value)
    served = Counter(problem_id for batch in log for problem_id in batch.problem_id)
    for problem_id, n_served in served.items():
        estimate = client.estimate(curriculum.measurement_id, problem_id)
        assert (estimate.n_groups, estimate.n_counted) == (n_served, n_served * N_GENERATIONS)
        assert estimate.n_passed == passed[problem_id]


def test_the_gradient_of_all_ranks_is_that_of_one_weighted_loss(runs: Runs) -> None:
    """Against float64 autograd over full logits: two ranks, two micro-batches each."""
    ranks = [rank["distil"] for rank in runs.ranks]
    (batch,) = runs.client.batches(runs.distil.curriculum_id)
    assert batch.state == "acknowledged"
    micro_batches = [micro_batch for rank in ranks for micro_batch in rank["seen"]]
    assert len(micro_batches) == N_RANKS * N_MICRO_STEPS
    weights = [weight for micro_batch in micro_batches for weight in micro_batch["loss_weight"].tolist()]
    assert sorted(weights) == pytest.approx(sorted(batch.loss_weight))
    assert len(set(weights)) > 3, "weights that tell problems apart"

    student, teacher = (AutoModelForCausalLM.from_pretrained(runs.folder / name) for name in ("model", "teacher"))
    trainer = SimpleNamespace(model=student, teacher_model=teacher, temperature=ranks[0]["temperature"])
    losses = [
        (dense_kl(trainer, inputs, "forward_kl").nanmean(1) * inputs["loss_weight"].double()).sum()
        for inputs in micro_batches
    ]
    expected = torch.autograd.grad(sum(losses) / len(weights), list(student.parameters()))
    for (name, before), gradient in zip(student.named_parameters(), expected, strict=True):
        steps = [before.detach() - rank["after"][name] for rank in ranks]
        assert torch.equal(*steps), "the ranks hold the same weights"
        rounding = 1e-7 * before.norm()  # of weights that are much larger than their step
        assert (steps[0] - gradient).norm() < 1e-5 * gradient.norm() + rounding, name
