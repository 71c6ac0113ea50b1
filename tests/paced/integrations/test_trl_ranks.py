"""TRL's own GRPOTrainer on several processes: each answers its share of a draw, and the draw is reported once."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from paced import Client
from tests.app.world import build
from tests.paced.integrations.ranks import N_GENERATIONS, N_RANKS, SIZE
from tests.paced.integrations.tiny import tiny_model
from tests.service import Service

ROOT = Path(__file__).resolve().parents[3]
N_STEPS = 3
pytestmark = pytest.mark.filterwarnings("ignore")  # TRL, datasets and accelerate warn of each other


@pytest.mark.slow
def test_ranks_share_each_draw_and_report_it_once(service: Service, client: Client, tmp_path: Path) -> None:
    curriculum = build(client, tmp_path, 40, holdout_share=0.2)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={N_RANKS}", "-m"]
    what = ["tests.paced.integrations.ranks", service.url, str(tiny_model(tmp_path / "model")), str(tmp_path)]
    done = subprocess.run(
        [*command, *what, str(N_STEPS)], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    log = list(client.batches(curriculum.curriculum_id))
    assert [(batch.step, batch.state) for batch in log] == [(step, "acknowledged") for step in range(N_STEPS)]

    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(N_RANKS)]
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
