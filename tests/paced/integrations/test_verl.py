"""verl's own data set hook, loader and protocol, without its trainer, which needs GPUs.

verl is not among the project's dependencies: it holds transformers below 5.11. To run this against it, put
`pip install --no-deps verl ray tensordict pyvers msgpack omegaconf hydra-core antlr4-python3-runtime==4.9.3 codetiming`
on the path.
"""

import shlex
from pathlib import Path
from typing import Any

import pytest
from torchdata.stateful_dataloader import StatefulDataLoader

from paced import Client, wire
from paced.integrations.rows import Ticket
from tests.app.world import build
from tests.docs.snippets import snippet

pytest.importorskip("verl", reason="needs verl, which is not among the project's dependencies")
SIZE, N_ANSWERS, N_STEPS = 4, 2, 3
pytestmark = pytest.mark.filterwarnings("ignore")  # verl, ray and torchdata warn of each other


def config_of(folder: Path, size: int, n_steps: int) -> Any:
    """verl's own configuration with what the page on clients tells to add, but for the size."""
    from hydra import compose, initialize_config_module

    (folder / "rewards.py").write_text(snippet("clients.md", "integrations.verl").replace('"student"', '"tiny"'))
    words = shlex.split(snippet("clients.md", "verl.trainer.main_ppo", "sh"))
    told = [word for word in words if "=" in word]
    smaller = [f"data.train_batch_size={size}", f"data.paced.n_steps={n_steps}"]
    place = f"reward.custom_reward_function.path={folder / 'rewards.py'}"
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=[*told, *smaller, place])


def loader_of(config: Any) -> Any:
    """As verl's trainers make it."""
    from verl.trainer.ppo.utils import create_rl_dataset, create_rl_sampler
    from verl.utils.dataset.rl_dataset import collate_fn

    data = config.data
    dataset = create_rl_dataset(data.train_files, data, None, None, is_train=True, max_samples=-1)
    sampler = create_rl_sampler(data, dataset)
    size = data.train_batch_size
    return StatefulDataLoader(
        dataset, batch_size=size, num_workers=0, drop_last=True, collate_fn=collate_fn, sampler=sampler
    )


@pytest.fixture
def curriculum(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> wire.Curriculum:
    monkeypatch.setattr("paced.Client", lambda: client, raising=False)
    monkeypatch.setattr("paced.integrations.verl.Client", lambda: client)
    return build(client, tmp_path, 200, name="products")


def test_steps_are_drawn_and_reported(client: Client, curriculum: wire.Curriculum, tmp_path: Path) -> None:
    """By the hook that the legacy trainer calls after a step."""
    import numpy as np
    import torch
    from verl import DataProto

    loader = loader_of(config_of(tmp_path, SIZE, N_STEPS))
    assert len(loader) == N_STEPS
    for step, loaded in enumerate(loader):
        batch = DataProto.from_single_dict(loaded).repeat(repeat_times=N_ANSWERS, interleave=True)
        right = np.array([1.0, 0.0] * SIZE)
        batch.batch["token_level_scores"] = torch.zeros(len(batch), 5)
        batch.non_tensor_batch["acc"] = right
        loader.dataset.on_batch_end(batch=batch)
        drawn = list(client.batches(curriculum.curriculum_id))[step]
        assert drawn.state == "acknowledged"
        asked = [Ticket.read(extra["paced"]).problem_id for extra in batch.non_tensor_batch["extra_info"]]
        assert asked == [problem_id for problem_id in drawn.problem_id for _ in range(N_ANSWERS)]
        prompts = [turns[0]["content"] for turns in batch.non_tensor_batch["raw_prompt"]]
        assert all(prompt.startswith("Compute ") for prompt in prompts)
        for problem_id in drawn.problem_id:
            estimate = client.estimate(curriculum.measurement_id, problem_id)
            assert estimate.verdicts["pass"] == estimate.verdicts["fail"]


def test_answers_are_judged_and_reported(client: Client, curriculum: wire.Curriculum, tmp_path: Path) -> None:
    """By the hook for reward functions, as the recipe has it: 128 prompts, 8 answers to each."""
    from verl.trainer.ppo.reward import get_custom_reward_fn

    config = config_of(tmp_path, 128, 1)
    compute_score = get_custom_reward_fn(config)
    assert (config.reward.num_workers, config.actor_rollout_ref.rollout.n) == (1, 8)
    (batch,) = loader_of(config)
    rows = zip(batch["reward_model"], batch["extra_info"], batch["data_source"], strict=True)
    for truth, extra, source in rows:
        reference = truth["ground_truth"]
        for reply in [f"It is {reference}.", "?"] * 4:
            compute_score(data_source=source, solution_str=reply, ground_truth=reference, extra_info=extra, num_turns=2)
    (drawn,) = client.batches(curriculum.curriculum_id)
    assert drawn.state == "acknowledged"
    assert client.estimate(curriculum.measurement_id, drawn.problem_id[0]).verdicts == {"pass": 4, "fail": 4}


def test_a_resumed_loader_draws_no_step_twice(client: Client, curriculum: wire.Curriculum, tmp_path: Path) -> None:
    config = config_of(tmp_path, SIZE, N_STEPS)
    loader = loader_of(config)
    steps = iter(loader)
    next(steps)
    state = loader.state_dict()
    lost = next(steps)
    again = loader_of(config)
    again.load_state_dict(state)
    found = [[Ticket.read(extra["paced"]) for extra in step["extra_info"]] for step in [lost, *again]]
    assert found[0] == found[1]
    assert len(list(client.batches(curriculum.curriculum_id))) == N_STEPS == len(found)
