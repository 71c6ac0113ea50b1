"""TRL's own GRPOTrainer on a curriculum, on a tiny random model: weighted batches in, observations out."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from paced import Client, wire
from paced.integrations.trl import Curriculum, Weighted, WeightedSampler
from tests.app.world import build
from tests.paced.integrations.tiny import tiny_model

SIZE, N_GENERATIONS, N_STEPS = 4, 4, 3
pytestmark = pytest.mark.filterwarnings("ignore")  # TRL, datasets and accelerate warn of each other


@pytest.fixture
def curriculum(client: Client, tmp_path: Path) -> wire.Curriculum:
    return build(client, tmp_path, 40, holdout_share=0.2)


def trainer_of(model: Path, curriculum: Curriculum, rewards: list[Any], n_steps: int = N_STEPS, **options: Any) -> Any:
    from trl import GRPOConfig, GRPOTrainer

    class Trainer(Weighted, GRPOTrainer):  # type: ignore[misc]
        pass

    def is_even(completions: list[Any], **_: Any) -> list[float]:
        """A judge by chance, remembered for the test."""
        texts = [completion[0]["content"] for completion in completions]
        rewards.append([float(len(text.strip()) % 2 == 0) for text in texts])
        return list(rewards[-1])

    settings = {
        "per_device_train_batch_size": SIZE * N_GENERATIONS // 2,
        "gradient_accumulation_steps": 2,
        "num_generations": N_GENERATIONS,
        "max_completion_length": 6,
        "max_steps": n_steps,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "logging_strategy": "no",
        "disable_tqdm": True,
        "bf16": False,
        **options,
    }
    return Trainer(
        model=str(model),
        reward_funcs=curriculum.observed(is_even),
        args=GRPOConfig(output_dir=str(model.parent / "out"), **settings),
        curriculum=curriculum,
    )


def log_of(client: Client, curriculum: wire.Curriculum) -> list[wire.Batch]:
    return list(client.batches(curriculum.curriculum_id))


@pytest.mark.slow
def test_grpo_trains_on_weighted_batches_and_reports(
    client: Client, curriculum: wire.Curriculum, tmp_path: Path
) -> None:
    held_out = {e.problem_id for e in client.estimates(curriculum.measurement_id, is_holdout=True)}
    rewards: list[Any] = []
    trainer_of(tiny_model(tmp_path / "model"), Curriculum(client, "main", "grpo"), rewards).train()
    done = log_of(client, curriculum)
    assert [batch.step for batch in done] == list(range(N_STEPS))
    assert {batch.state for batch in done} == {"acknowledged"}
    assert all(batch.size == SIZE and not held_out & set(batch.problem_id) for batch in done)
    assert len(rewards) == N_STEPS
    expected: Counter[int] = Counter()
    for batch, values in zip(done, rewards, strict=True):
        for place, problem_id in enumerate(batch.problem_id):
            expected[problem_id] += int(sum(values[place * N_GENERATIONS : (place + 1) * N_GENERATIONS]))
    served = Counter(problem_id for batch in done for problem_id in batch.problem_id)
    for problem_id, n_served in served.items():
        estimate = client.estimate(curriculum.measurement_id, problem_id)
        assert (estimate.n_groups, estimate.n_counted) == (n_served, n_served * N_GENERATIONS)
        assert estimate.n_passed == expected[problem_id]
        assert {observation.source for observation in estimate.observations} == {"trainer"}


@pytest.mark.slow
def test_a_resumed_grpo_run_draws_no_step_twice(client: Client, curriculum: wire.Curriculum, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    saving = {"save_strategy": "steps", "save_steps": 2}
    first = Curriculum(client, "main", "grpo", register=True)
    trainer_of(model, first, [], n_steps=2, **saving).train()
    assert [c.step for c in client.checkpoints("tiny")] == [None, 2]
    before = [batch.batch_id for batch in log_of(client, curriculum)]
    rewards: list[Any] = []
    again = Curriculum(client, "main", "grpo", register=True)
    trainer_of(model, again, rewards, n_steps=4, **saving).train(
        resume_from_checkpoint=str(tmp_path / "out/checkpoint-2")
    )
    log = log_of(client, curriculum)
    assert [batch.batch_id for batch in log][: len(before)] == before
    assert [(batch.step, batch.state) for batch in log] == [(step, "acknowledged") for step in range(4)]
    assert len(rewards) == 2, "the first two steps were passed over"
    assert [c.step for c in client.checkpoints("tiny")] == [None, 2, 4]
    newest = client.estimate(curriculum.measurement_id, log[3].problem_id[0]).observations[0]
    assert newest.checkpoint_index == 1


@pytest.mark.slow
def test_a_grpo_run_that_dies_with_a_batch_goes_on_with_it(
    client: Client, curriculum: wire.Curriculum, tmp_path: Path
) -> None:
    """What was fetched but not trained on comes back once: no step is skipped, none is done twice."""
    model = tiny_model(tmp_path / "model")

    class Dying(list[Any]):
        def append(self, value: Any) -> None:
            if len(self) == 2:
                raise KeyboardInterrupt
            super().append(value)

    saving = {"save_strategy": "steps", "save_steps": 1}
    with pytest.raises(KeyboardInterrupt):
        trainer_of(model, Curriculum(client, "main", "grpo"), Dying(), n_steps=4, **saving).train()
    before = log_of(client, curriculum)
    assert [batch.state for batch in before[:3]] == ["acknowledged", "acknowledged", "open"]
    lost = before[2].problem_id

    rewards: list[Any] = []
    trainer = trainer_of(model, Curriculum(client, "main", "grpo"), rewards, n_steps=4, **saving)
    trainer.train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-2"))
    log = log_of(client, curriculum)
    assert [batch.batch_id for batch in log][: len(before)] == [batch.batch_id for batch in before]
    assert [(batch.step, batch.state) for batch in log] == [(step, "acknowledged") for step in range(4)]
    assert len(rewards) == 2
    served = Counter(problem_id for batch in log for problem_id in batch.problem_id)
    for problem_id in lost:
        assert client.estimate(curriculum.measurement_id, problem_id).n_groups == served[problem_id]


def test_the_sampler_repeats_as_trl_asks(client: Client, curriculum: wire.Curriculum) -> None:
    mine = Curriculum(client, "main", "sampler")
    dataset = mine.dataset()
    sampler = WeightedSampler(mine, SIZE, n_generations=3, n_repeats=2, n_draws=2)
    rows = list(sampler)
    assert len(rows) == len(sampler) == 2 * SIZE * 3 * 2
    for draw, start in zip(mine.drawn, (0, len(rows) // 2), strict=True):
        one = [problem_id for problem_id in draw.batch.problem_id for _ in range(3)]
        assert [dataset[row]["problem_id"] for row in rows[start : start + len(rows) // 2]] == one * 2
    assert dataset[0]["prompt"] == [{"role": "user", "content": "Compute 0 + 1."}]


def test_a_short_batch_is_filled_up(client: Client, curriculum: wire.Curriculum) -> None:
    n_trained = 40 - sum(e.is_holdout for e in client.estimates(curriculum.measurement_id))
    most = client.draw_batch(curriculum.curriculum_id, n_trained - 3)
    mine = Curriculum(client, "main", "short")
    mine.dataset()
    rows = list(WeightedSampler(mine, SIZE, n_generations=1, n_repeats=1, n_draws=1))
    assert (mine.drawn[0].batch.size, len(rows), len(set(rows))) == (3, SIZE, 3)
    client.acknowledge(most.batch_id)


def test_rewards_become_verdicts(client: Client, curriculum: wire.Curriculum) -> None:
    mine = Curriculum(client, "main", "verdicts")
    mine.dataset()
    list(WeightedSampler(mine, 3, 1, 1, 1))
    one, two, three = mine.drawn[0].batch.problem_id
    reward = mine.observed(lambda **_: [1.0, 0.0, 0.2, None, 1.0], max_completion_length=4)
    columns = {"problem_id": [one, one, two, three, two], "completion_ids": [[1], [1, 2, 3, 4], [1], [1], [1] * 4]}
    assert reward(**columns) == [1.0, 0.0, 0.2, None, 1.0]
    assert len(reward(completions=["a"] * 5)) == 5, "a data set of others is not counted"
    mine.finish()
    found = [client.estimate(curriculum.measurement_id, problem_id) for problem_id in (one, two, three)]
    assert [estimate.verdicts for estimate in found] == [{"pass": 1, "truncated": 1}, {"pass": 1, "fail": 1}, {}]


def test_a_problem_imported_later_is_told(client: Client, curriculum: wire.Curriculum) -> None:
    mine = Curriculum(client, "main", "grown")
    mine.dataset()
    with pytest.raises(ValueError, match="problem 987654 was imported after this data set was made: start again"):
        mine.place_of(987654)
