"""What trainers that do not install here ask of an adapter, written down from their sources; for tests.

verl: release 0.9.1, `ppo/utils.py`, `ppo/ray_trainer.py`, `ppo/reward.py`, `utils/dataset/rl_dataset.py`.
OpenRLHF: commit db825a2, `trainer/ppo_trainer.py`, `trainer/ppo_utils/samples_generator.py`,
`datasets/prompts_dataset.py`; names of options as of 0.10.3, where `--prompt_data` became `--data.prompt_dataset`.
NeMo-RL: commits 002cdc2 (`algorithms/grpo.py`), 0406a64 (`data/interfaces.py`, `data/collate_fn.py`) and 0b8a793
(`environments/interfaces.py`).
"""

import shlex
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torchdata.stateful_dataloader import StatefulDataLoader


def options(command: str, prefix: str = "") -> dict[str, Any]:
    """The dotted options of a command line, `--a.b VALUE` or `a.b=VALUE`, as a tree."""
    words = shlex.split(command)
    if prefix:
        pairs = [(word.removeprefix(prefix), words[i + 1]) for i, word in enumerate(words) if word.startswith(prefix)]
    else:
        pairs = [
            (name.removeprefix("+"), value) for name, is_pair, value in (w.partition("=") for w in words) if is_pair
        ]
    tree: dict[str, Any] = {}
    for name, value in pairs:
        *parents, last = name.split(".")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = {"True": True, "False": False}.get(value, int(value) if value.isdigit() else value)
    return tree


def verl_dataset(kind: type, config: dict[str, Any], tokenizer: Any, client: Any) -> Any:
    """`create_rl_dataset`: one call, by these names."""
    made = {"data_files": config["train_files"], "tokenizer": tokenizer, "processor": None, "config": config}
    return kind(**made, max_samples=-1, client=client)


def verl_loader(dataset: Any, batch_size: int) -> Any:
    """`create_rl_sampler` without a shuffle, and the loader of both of verl's trainers."""
    return StatefulDataLoader(
        dataset, batch_size=batch_size, num_workers=0, drop_last=True, collate_fn=list, sampler=range(len(dataset))
    )


def openrlhf_strategy(args: dict[str, Any]) -> Any:
    """What `prepare_datasets` is given: arguments in name spaces, and a maker of loaders."""

    def setup_dataloader(
        dataset: Any, batch_size: int, pin_memory: bool, shuffle: bool, collate_fn: Any, num_workers: int
    ) -> Any:
        assert not shuffle
        return StatefulDataLoader(
            dataset, batch_size=batch_size, shuffle=shuffle, collate_fn=collate_fn, num_workers=num_workers
        )

    spaces = {name: SimpleNamespace(**values) for name, values in args.items()}
    return SimpleNamespace(args=SimpleNamespace(**spaces), setup_dataloader=setup_dataloader)


def nemo_rl_loader(dataset: Any, batch_size: int) -> Any:
    """The loader of `setup`; its collate function reads these fields of each datum."""
    fields = {"message_log", "length", "loss_multiplier", "extra_env_info", "idx", "task_name"}
    for name in fields:
        assert name in dataset[0]
    return StatefulDataLoader(dataset, batch_size=batch_size, shuffle=False, collate_fn=list, drop_last=True)


class EnvironmentReturn(NamedTuple):
    """What NeMo-RL's environments return, in its order."""

    observations: list[Any]
    metadata: list[Any]
    next_stop_strings: list[Any]
    rewards: torch.Tensor
    terminateds: torch.Tensor
    answers: list[Any] | None = None
