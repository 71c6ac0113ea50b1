"""What trainers that do not install here ask of an adapter, written down from their sources; for tests.

verl: release 0.9.1, `ppo/utils.py`, `ppo/ray_trainer.py`, `ppo/reward.py`, `utils/dataset/rl_dataset.py`.
OpenRLHF: commit db825a2, `trainer/ppo_trainer.py`, `trainer/ppo_utils/samples_generator.py`,
`datasets/prompts_dataset.py`; names of options as of 0.10.3, where `--prompt_data` became `--data.prompt_dataset`.
verifiers: release 0.4.0, `v1/taskset.py`, `v1/task.py`, `v1/utils/generic.py`.
NeMo-RL: commits 002cdc2 (`algorithms/grpo.py`), 0406a64 (`data/interfaces.py`, `data/collate_fn.py`) and 0b8a793
(`environments/interfaces.py`).
"""

import copy
import shlex
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, Generic, NamedTuple, TypeVar, get_args, get_origin

import torch
from pydantic import BaseModel, ConfigDict
from torchdata.stateful_dataloader import StatefulDataLoader

T = TypeVar("T")
C = TypeVar("C")


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


class TaskData(BaseModel):
    """verifiers' row of a task, as it goes over the wire."""

    model_config = ConfigDict(frozen=True)

    idx: int | None = None
    prompt: str | list[dict[str, Any]] | None = None
    system_prompt: str | None = None


class Task(Generic[T]):
    """verifiers' task: its type of data is the one in brackets."""

    def __init__(self, data: T, config: Any = None) -> None:
        self.data, self.config = data, config

    @classmethod
    def data_type(cls) -> Any:
        return _in_brackets(cls, Task)


class TasksetConfig(BaseModel):
    """verifiers' configuration of a taskset."""

    id: str = ""
    task: Any = None


class Taskset(Generic[T, C]):
    """verifiers' taskset: iterated, it numbers what `load` yields."""

    def __init__(self, config: C) -> None:
        self.config = config

    def __iter__(self) -> Iterator[Any]:
        for idx, task in enumerate(self.load()):
            clone = copy.copy(task)
            clone.data = task.data.model_copy(update={"idx": idx})
            yield clone

    def load(self) -> Iterator[T]:
        raise NotImplementedError

    @classmethod
    def task_type(cls) -> Any:
        return _in_brackets(cls, Taskset)


def _in_brackets(kind: type, origin: type) -> Any:
    bases = [base for item in kind.__mro__ for base in getattr(item, "__orig_bases__", ())]
    return next(get_args(base)[0] for base in bases if get_origin(base) is origin)


def verifiers_v1() -> ModuleType:
    """`verifiers.v1`, as far as an adapter needs it."""
    module = ModuleType("verifiers.v1")
    trace = type("Trace", (), {})
    names = {"TaskData": TaskData, "Task": Task, "TasksetConfig": TasksetConfig, "Taskset": Taskset, "Trace": trace}
    module.__dict__.update(names, reward=lambda function: function)
    return module


class EnvironmentReturn(NamedTuple):
    """What NeMo-RL's environments return, in its order."""

    observations: list[Any]
    metadata: list[Any]
    next_stop_strings: list[Any]
    rewards: torch.Tensor
    terminateds: torch.Tensor
    answers: list[Any] | None = None
