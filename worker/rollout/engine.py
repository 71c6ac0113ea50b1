"""What answers prompts: the protocol, its values and errors, and the choice between engines.

EngineFailure        this prompt or this checkpoint could not be served; the next one may
└── EngineDown       nothing can be served any more: the engine's process died, or its server is gone
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from paced.wire import Message


class EngineFailure(Exception):
    """The engine could not do what was asked; the message says why and what to do."""


class EngineDown(EngineFailure):
    """The engine will not answer anything any more."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn: `n` a prompt, at most `max_tokens` tokens each; `top_k` 0 keeps all tokens."""

    n: int
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop: tuple[str, ...]
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; truncated means that it ended at the token limit, not by itself."""

    text: str
    n_tokens: int
    is_truncated: bool


class Engine(Protocol):
    """A student that answers; calls of `generate` may run concurrently, the others may not."""

    async def start(self) -> None:
        """Make ready to answer; an engine without a model waits for `load_checkpoint`. Raises EngineFailure."""
        ...

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Answer]:
        """Answer one chat `sampling.n` times; cancelling stops the work. Raises EngineFailure."""
        ...

    async def load_checkpoint(self, uri: str) -> None:
        """Answer with these weights from now on; nothing may be in flight. Raises EngineFailure."""
        ...

    async def stop(self) -> None:
        """Free everything, processes included; twice is once."""
        ...


@dataclass(frozen=True)
class EngineOptions:
    """Settings of all engines; each reads its own.

    vllm: `model` is a folder or hub name, None waits for the first checkpoint; `kv_cache_gib` is the cache on a CPU,
    `gpu_memory_utilization` the share of a GPU; `max_num_seqs` answers are generated at once; `seed` None is random.
    openai: `model` is the served name and may hold `{uri}` or `{name}`, see openai_engine.
    scripted: `delay_s` is the length of one answer.
    """

    model: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int = 256
    dtype: str = "auto"
    seed: int | None = None
    kv_cache_gib: float = 1.0
    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int = 1
    openai_url: str = "http://127.0.0.1:8000/v1"
    openai_key: str | None = None
    timeout_s: float = 600.0
    retry_s: float = 120.0
    delay_s: float = 0.0


def make_engine(kind: str, options: EngineOptions) -> Engine:
    """The engine of that kind, not started; only then is its library imported. Raises EngineFailure."""
    if kind not in _ENGINES:
        raise EngineFailure(f"there is no engine {kind!r}; choose one of {', '.join(_ENGINES)}.")
    return _ENGINES[kind](options)


def _vllm(options: EngineOptions) -> Engine:
    from worker.rollout.vllm_engine import VllmEngine

    return VllmEngine(options)


def _openai(options: EngineOptions) -> Engine:
    from worker.rollout.openai_engine import OpenaiEngine

    return OpenaiEngine(options)


def _scripted(options: EngineOptions) -> Engine:
    from worker.rollout.scripted_engine import ScriptedEngine

    return ScriptedEngine(delay_s=options.delay_s)


_ENGINES: dict[str, Callable[[EngineOptions], Engine]] = {"vllm": _vllm, "openai": _openai, "scripted": _scripted}
