"""Texts from a teacher: through vLLM, or through the model that is already in this process."""

import asyncio
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from paced.wire import Message
from worker.distill.config import DistillConfig
from worker.distill.data import encode_chat, end_of_turn
from worker.distill.generate import Generator, answer_text
from worker.distill.teachers.served import ServedEngine, ServedModel
from worker.distill.teachers.teacher import Teacher
from worker.rollout.engine import Answer, Engine, EngineFailure, EngineOptions, Sampling, make_engine


@dataclass
class _Waiting:
    """Calls that arrived together and will be answered in one batch."""

    prompts: list[list[int]] = field(default_factory=list)
    futures: list[asyncio.Future[list[Answer]]] = field(default_factory=list)


class TransformersEngine:
    """The engine protocol over a model in this process; calls made together with `gather` share a padded batch."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int) -> None:
        self._tokenizer = tokenizer
        self._generator = Generator(model, tokenizer, [end_of_turn(tokenizer)], batch_size)
        self._waiting: dict[Sampling, _Waiting] = {}

    async def start(self) -> None:
        """Nothing to do: the model is loaded."""

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Answer]:
        """Answer one chat `sampling.n` times."""
        loop = asyncio.get_running_loop()
        if sampling not in self._waiting:
            self._waiting[sampling] = _Waiting()
            loop.call_soon(self._flush, sampling)
        waiting = self._waiting[sampling]
        future: asyncio.Future[list[Answer]] = loop.create_future()
        waiting.prompts.append(encode_chat(self._tokenizer, messages))
        waiting.futures.append(future)
        return await future

    async def load_checkpoint(self, uri: str) -> None:
        """Refused: the model belongs to the caller."""
        raise EngineFailure(f"the engine 'transformers' answers with the trainer's own model and cannot load {uri}")

    async def stop(self) -> None:
        """Nothing to free."""

    def _flush(self, sampling: Sampling) -> None:
        waiting = self._waiting.pop(sampling)
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        try:
            answers = self._generator.answers(waiting.prompts, sampling)
        except Exception as error:
            for future in waiting.futures:
                future.set_exception(error)
            return
        for future, group in zip(waiting.futures, answers, strict=True):
            texts = [answer_text(self._tokenizer, answer, sampling.stop) for answer in group]
            future.set_result(
                [
                    Answer(text, len(answer.token_ids), answer.is_truncated)
                    for text, answer in zip(texts, group, strict=True)
                ]
            )


def make_writer(config: DistillConfig, n_ranks: int, teacher: Teacher) -> Engine:
    """The engine that writes a teacher's texts: a URL's own; 'auto' takes vLLM if it is installed and there is a GPU.

    On a CPU a second engine would only take the trainer's cores; on several ranks, each would take the first GPU.
    """
    source = teacher.source
    if isinstance(source, ServedModel):
        return ServedEngine(source, teacher.tokenizer)
    kind = config.engine
    if kind == "auto":
        has_vllm = n_ranks == 1 and torch.cuda.is_available() and importlib.util.find_spec("vllm")
        kind = "vllm" if has_vllm else "transformers"
    if kind == "transformers":
        return TransformersEngine(source.model, teacher.tokenizer, config.generate_batch_size)
    longest = config.max_prompt_tokens + config.max_answer_tokens + 1
    options = EngineOptions(
        model=str(source.folder),
        max_model_len=min(longest, getattr(source.model.config, "max_position_embeddings", longest)),
        gpu_memory_utilization=config.engine_gpu_share,
    )
    return make_engine(kind, options)
