"""A GRPO run on served weights, beside the same run without the adapter: prompts and pass rates, nothing else."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
import torch
from torch.utils.data import Sampler

from paced import Client, wire
from paced.integrations.trl import Curriculum, Weighted
from tests.app.world import build, measure
from tests.paced.integrations.tiny import tiny_model

N_PROBLEMS, SIZE, N_GENERATIONS, N_STEPS, N_MICRO_STEPS = 32, 4, 4, 24, 2
TIMES = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "step_time"}
pytestmark = pytest.mark.filterwarnings("ignore")  # TRL, datasets and accelerate warn of each other


@dataclass
class Judge:
    """Right or wrong by the text alone, in `n_right` of eight cases of a problem; remembers what it was asked."""

    n_right: dict[int, int]
    asked: list[list[int]] = field(default_factory=list)
    n_passed: Counter[int] = field(default_factory=Counter)
    __name__: str = "is_right"

    def __call__(self, completions: list[Any], problem_id: list[int], **_: Any) -> list[float]:
        texts = [completion[0]["content"] for completion in completions]
        found = [float(crc32(text.encode()) % 8 < self.n_right[i]) for text, i in zip(texts, problem_id, strict=True)]
        self.asked.append(list(problem_id))
        self.n_passed.update(i for i, value in zip(problem_id, found, strict=True) if value)
        return found


def brevity(completions: list[Any], **_: Any) -> list[float]:
    """A shaped reward, which often reaches what would be a pass."""
    return [2.0 / (1 + len(completion[0]["content"])) + 0.7 for completion in completions]


class Rows(Sampler[int]):
    """A sequence of rows, known from the start."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)


def config(folder: Path) -> Any:
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=SIZE * N_GENERATIONS // N_MICRO_STEPS,
        gradient_accumulation_steps=N_MICRO_STEPS,
        num_generations=N_GENERATIONS,
        max_completion_length=6,
        max_steps=N_STEPS,
        learning_rate=1e-3,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        logging_steps=1,
        disable_tqdm=True,
        bf16=False,
    )


def plain_run(model: Path, problems: list[wire.Problem], drawn: list[wire.Batch], judge: Judge) -> Any:
    """TRL alone, on the prompts that were drawn, by a sampler of its own."""
    from datasets import Dataset
    from trl import GRPOTrainer

    row_of = {problem.problem_id: row for row, problem in enumerate(problems)}
    rows = [
        row_of[problem_id]
        for batch in drawn
        for _ in range(N_MICRO_STEPS)
        for problem_id in batch.problem_id
        for _ in range(N_GENERATIONS)
    ]

    class Plain(GRPOTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, dataset: Any = None) -> Rows:  # noqa: ARG002 - TRL's own signature
            return Rows(rows)

    texts = [
        {"prompt": [{"role": "user", "content": problem.prompt}], "problem_id": problem.problem_id}
        for problem in problems
    ]
    trainer = Plain(
        model=str(model),
        reward_funcs=[brevity, judge],
        args=config(model.parent / "plain"),
        train_dataset=Dataset.from_list(texts),
    )
    trainer.train()
    return trainer


def weighted_run(model: Path, curriculum: Curriculum, judge: Judge) -> Any:
    from trl import GRPOTrainer

    class Trainer(Weighted, GRPOTrainer):  # type: ignore[misc]
        pass

    trainer = Trainer(
        model=str(model),
        reward_funcs=[brevity, curriculum.observed(judge)],
        args=config(model.parent / "weighted"),
        curriculum=curriculum,
    )
    trainer.train()
    return trainer


def chances(client: Client, curriculum: wire.Curriculum) -> dict[int, float]:
    """The chance of every problem in the first place of a draw."""
    batch = client.draw_batch(curriculum.curriculum_id, N_PROBLEMS, include="ids")
    client.acknowledge(batch.batch_id)
    return dict(zip(batch.problem_id, map(float, batch.draw_probability), strict=True))  # type: ignore[arg-type]


def history(trainer: Any) -> list[dict[str, float]]:
    """Everything that was logged, but for what a clock says."""
    return [{key: value for key, value in entry.items() if key not in TIMES} for entry in trainer.state.log_history]


@pytest.mark.slow
def test_prompts_follow_the_weights_and_nothing_else_differs_from_trl_alone(client: Client, tmp_path: Path) -> None:
    curriculum = build(client, tmp_path, N_PROBLEMS, holdout_share=0.0, seed=5)
    problems = list(client.problems(curriculum.problem_set, limit=1000))
    ids = [problem.problem_id for problem in problems]
    frontier, learnt = ids[: N_PROBLEMS // 2], ids[:4]
    measured = {i: 4 if i in frontier else 8 * (i % 2) for i in ids}
    measure(client, passed=lambda i: measured[i], size=N_PROBLEMS)
    before, rates = chances(client, curriculum), {i: client.estimate(curriculum.measurement_id, i) for i in ids}

    model = tiny_model(tmp_path / "model")
    judge = Judge({**measured, **dict.fromkeys(learnt, 8)})
    mine = Curriculum(client, "main", "grpo")
    trained = weighted_run(model, mine, judge)
    drawn = list(client.batches(curriculum.curriculum_id, run_id=mine.run_id))
    assert [(batch.step, batch.state) for batch in drawn] == [(step, "acknowledged") for step in range(N_STEPS)]
    after = chances(client, curriculum)

    # The trainer's prompts are those of the service's log, and these follow the weights that it served.
    log = [problem_id for batch in drawn for problem_id in batch.problem_id]
    assert judge.asked == [[i for i in batch.problem_id for _ in range(N_GENERATIONS)] for batch in drawn]
    share = sum(i in frontier for i in log) / len(log)
    lowest, highest = sorted(sum(law[i] for i in frontier) for law in (before, after))
    sigma = (lowest * (1 - lowest) / len(log)) ** 0.5
    assert lowest - 4 * sigma < share < highest + 4 * sigma
    assert lowest - 4 * sigma > 0.5, "a uniform draw would have been seen"

    # Outcomes are observations, of the judge alone: p moves, and with it the chances.
    served = Counter(log)
    for problem_id, n_served in served.items():
        estimate = client.estimate(curriculum.measurement_id, problem_id)
        assert (estimate.n_groups, estimate.n_counted) == (1 + n_served, 8 + n_served * N_GENERATIONS)
        assert estimate.n_passed == measured[problem_id] + judge.n_passed[problem_id]
    moved = [i for i in learnt if i in served]
    assert len(moved) > 1
    for problem_id in moved:
        now, then = client.estimate(curriculum.measurement_id, problem_id), rates[problem_id]
        assert now.pass_rate is not None
        assert then.pass_rate is not None
        assert now.pass_rate > then.pass_rate + 0.05
        assert after[problem_id] < before[problem_id]

    # Without the adapter, given the same prompts: the same run to the last bit.
    alone = Judge(judge.n_right)
    plain = plain_run(model, problems, drawn, alone)
    assert alone == judge
    assert history(plain) == history(trained)
    assert len(history(plain)) == N_STEPS + 1
    theirs, ours, untrained = plain.model.state_dict(), trained.model.state_dict(), loaded(model)
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    assert not all(torch.equal(untrained[name], ours[name]) for name in ours), "it was trained"


def loaded(model: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    return dict(AutoModelForCausalLM.from_pretrained(model).state_dict())
