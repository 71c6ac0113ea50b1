"""The recipes that the page on clients shows, run as they stand there: inside TRL, and by the calls of the others.

Those of plain PyTorch and of the client run in `test_pages`, that of verifiers in `test_verifiers`, and that of verl
also in `test_verl`, inside verl.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from paced import Client, wire
from paced.integrations import openrlhf, verl
from tests.app.world import build
from tests.docs.snippets import snippet
from tests.paced.integrations import recorded
from tests.paced.integrations.test_adapters import Text
from tests.paced.integrations.tiny import tiny_model

PAGE = "clients.md"
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata calls it
SMALL = "use_cpu=True, bf16=False, report_to=[], save_strategy='no', disable_tqdm=True, max_completion_length=6, "


@pytest.fixture
def curriculum(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> wire.Curriculum:
    """One of the name that the recipes use; their clients are the test's, which closes it."""
    monkeypatch.setattr("paced.Client", lambda: client, raising=False)
    monkeypatch.chdir(tmp_path)
    return build(client, tmp_path, 200, name="products", holdout_share=0.0)


def names_of(word: str, curriculum: wire.Curriculum, **given: Any) -> dict[str, Any]:
    """What a recipe defines, where its student is the world's."""
    names = {"__name__": "recipe", **given}
    exec(snippet(PAGE, word).replace('"student"', f'"{curriculum.student}"'), names)
    return names


def expect(client: Client, curriculum: wire.Curriculum, n_answers: int) -> None:
    """The first batch is acknowledged, with every answer as an observation: half of them right."""
    batch = next(client.batches(curriculum.curriculum_id))
    assert batch.state == "acknowledged"
    found = [client.estimate(curriculum.measurement_id, problem_id) for problem_id in batch.problem_id]
    assert sum(estimate.n_counted for estimate in found) == n_answers
    assert sum(estimate.n_passed for estimate in found) == n_answers // 2


def replies(reference: str, n: int) -> Sequence[str]:
    return [f"It is {reference}.", "I do not know."] * (n // 2)


def test_verl(client: Client, curriculum: wire.Curriculum) -> None:
    asked = recorded.options(snippet(PAGE, "verl.trainer.main_ppo", "sh"))
    data, n = asked["data"], asked["actor_rollout_ref"]["rollout"]["n"]
    assert data["custom_cls"] == {"path": "pkg://paced.integrations.verl", "name": verl.CurriculumDataset.__name__}
    assert asked["reward"]["num_workers"] == 1
    dataset = recorded.verl_dataset(verl.CurriculumDataset, data, Text(), client)
    assert len(dataset) == data["paced"]["n_steps"] * data["train_batch_size"]
    compute_score = names_of("integrations.verl", curriculum)["compute_score"]
    for row in next(iter(recorded.verl_loader(dataset, data["train_batch_size"]))):
        for reply in replies(row["reward_model"]["ground_truth"], n):
            named = {"ground_truth": row["reward_model"]["ground_truth"], "extra_info": row["extra_info"]}
            compute_score(data_source=row["data_source"], solution_str=reply, **named, num_turns=2)
    expect(client, curriculum, data["train_batch_size"] * n)


def test_openrlhf(client: Client, curriculum: wire.Curriculum) -> None:
    command = snippet(PAGE, "openrlhf.cli", "sh")
    assert "paced.integrations.openrlhf.install" in command
    assert openrlhf.install
    given = recorded.options(command, "--")
    train = {"num_episodes": 1, "max_epochs": 1, **given["train"]}
    args = {"data": given["data"], "rollout": given["rollout"], "train": train, "eval": {"dataset": None}}
    loader, _, n_steps = openrlhf.prepare_datasets(recorded.openrlhf_strategy(args), Text(), client)
    size, n = args["rollout"]["batch_size"], args["rollout"]["n_samples_per_prompt"]
    assert n_steps == given["data"]["max_samples"] // size
    reward_func = names_of("integrations.openrlhf", curriculum)["reward_func"]
    for _, (_, (prompt,), (label,), _) in zip(range(size), loader, strict=False):
        reference = label.rpartition('"')[0].rpartition('"')[2]
        for reply in replies(reference, n):
            assert reward_func([prompt + reply], [prompt], [label])["rewards"].shape == (1,)
    expect(client, curriculum, size * n)


def test_nemo_rl(client: Client, curriculum: wire.Curriculum) -> None:
    class YourEnvironment:
        def step(self, message_log_batch: list[Any], metadata: list[dict[str, Any]]) -> recorded.EnvironmentReturn:
            pairs = zip(message_log_batch, metadata, strict=True)
            rewards = torch.tensor([float(info["ground_truth"] in log[-1]["content"]) for log, info in pairs])
            nothing = [None] * len(rewards)
            return recorded.EnvironmentReturn([], nothing, nothing, rewards, torch.ones(len(rewards)))

    names = names_of("integrations.nemo_rl", curriculum, tokenizer=Text(), YourEnvironment=YourEnvironment)
    items = next(iter(recorded.nemo_rl_loader(names["dataset"], names["rows"].size)))
    n = 16
    info = [item["extra_env_info"] for item in items for _ in range(n)]
    said = [reply for item in items for reply in replies(item["extra_env_info"]["ground_truth"], n)]
    names["Environment"]().step([[{"role": "assistant", "content": reply}] for reply in said], info)
    expect(client, curriculum, len(items) * n)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # TRL, datasets and accelerate warn of each other
@pytest.mark.parametrize("trainer", ["GRPOTrainer", "DistillationTrainer"])
def test_trl(trainer: str, client: Client, curriculum: wire.Curriculum, tmp_path: Path) -> None:
    tiny_model(tmp_path / "model")
    tiny_model(tmp_path / "teacher", seed=1)
    names = names_of("def is_right", curriculum)
    kind = "GRPO" if trainer == "GRPOTrainer" else "Distillation"
    if kind == "Distillation":
        exec(snippet(PAGE, "WeightedDistillation, DistillationTrainer"), names)
    run = snippet(PAGE, f"args={kind}Config(")
    exec(run.replace(f"{kind}Config(max_steps=100", f"{kind}Config({SMALL}max_steps=2"), names)
    states = [batch.state for batch in client.batches(curriculum.curriculum_id)]
    assert states == ["acknowledged"] * 2
