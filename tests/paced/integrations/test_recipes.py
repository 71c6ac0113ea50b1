"""The recipes that the page on clients shows, run as they stand there: inside TRL, and by the calls of the others.

Those of plain PyTorch and of the client run in `test_pages`; where verl or verifiers is installed, theirs run inside it
in `test_verl` and `test_verifiers`.
"""

import asyncio
import itertools
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

import paced.integrations
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


def test_verifiers(client: Client, curriculum: wire.Curriculum, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its classes as they were written down; `test_verifiers` has the real ones."""
    vf = recorded.verifiers_v1()
    package = ModuleType("verifiers")
    package.v1 = vf  # type: ignore[attr-defined]
    for name, module in (("verifiers", package), ("verifiers.v1", vf)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "paced.integrations.verifiers", raising=False)
    monkeypatch.setattr(paced.integrations, "verifiers", None, raising=False)  # what this import sets is taken back
    monkeypatch.setattr("paced.client.Client", lambda: client)
    names = names_of("CurriculumTaskset", curriculum)
    adapter = sys.modules.pop("paced.integrations.verifiers")
    (kind,) = (names[name] for name in names["__all__"])
    (source,) = tomllib.loads(snippet(PAGE, "products-env", "toml"))["orchestrator"]["train"]["source"]
    settings = source["env"]["taskset"]
    assert source["serve"]["pool"] == {"type": "static", "num_workers": 1}
    assert settings["group_size"] == source["group_size"]
    tasks = list(itertools.islice(kind(adapter.CurriculumConfig(**settings)), settings["size"]))
    assert kind.INFINITE, "a taskset that ends is listed, which would draw all of it at once"
    assert [task.data.idx for task in tasks] == list(range(settings["size"]))
    for task in tasks:
        data = kind.task_type().data_type().model_validate(task.data.model_dump(mode="json"))
        assert str(data.prompt).startswith("Compute ")
        for reply in replies(data.answer, settings["group_size"]):
            trace = SimpleNamespace(last_reply=reply, is_truncated=False)
            assert asyncio.run(kind.task_type()(data).is_right(trace)) == float(data.answer in reply)
    expect(client, curriculum, settings["size"] * settings["group_size"])


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
