"""A teacher behind an OpenAI-compatible URL that takes token ids and tells log-probabilities of a prompt, as vLLM does.

Token ids go in and come out, so no text is tokenized twice. An answer is scored by sending it as a prompt: the server
then lists, for each of its tokens, the likeliest ones in that place, at temperature 1.
"""

# Dimension suffixes are capitals: A answer tokens, K listed tokens.
# ruff: noqa: N806

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2
import numpy as np

from paced.wire import Message
from worker.distill.data import Example, encode_chat, end_of_turn
from worker.distill.errors import TeacherSilent
from worker.distill.generate import Generated, answer_text
from worker.distill.teachers.addresses import TeacherAt
from worker.distill.teachers.target import Target
from worker.rollout.engine import Answer, EngineFailure, Sampling
from worker.rollout.exchange import Exchange, reason

RETRY_S = 600.0  # in which a server that died can come back
LEAST_LOGPROB = -100.0  # servers send −9999, or nothing, for a probability of 0


class ServedModel:
    """One model of a server; `model` is None until the preflight has found its name."""

    def __init__(self, at: TeacherAt, n_words: int, max_requests: int, timeout_s: float) -> None:
        self.at = at
        self.model = at.model
        self.n_words = n_words
        self.timeout_s = timeout_s
        self.max_requests = max_requests
        self._runner: asyncio.Runner | None = None
        self._exchange: Exchange | None = None

    def connect(self, timeout_s: float | None = None, retry_s: float = RETRY_S) -> Exchange:
        """New connections to the server, with the key from the environment; for one event loop."""
        return Exchange(self.at.at, os.environ.get(self.at.key_env or ""), timeout_s or self.timeout_s, retry_s)

    def score(self, examples: Sequence[Example], top_k: int) -> list[Target]:
        """The likeliest tokens at each place of each answer, and in the first slot the answer's own token.

        Raises TeacherSilent.
        """
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(self._scored(examples, top_k))

    def close(self) -> None:
        """Close the connections; they open again when needed."""
        runner, exchange, self._runner, self._exchange = self._runner, self._exchange, None, None
        if runner is not None:
            if exchange is not None:
                runner.run(exchange.close())
            runner.close()

    async def _scored(self, examples: Sequence[Example], top_k: int) -> list[Target]:
        if self._exchange is None:
            self._exchange = self.connect()
        exchange, free = self._exchange, asyncio.Semaphore(self.max_requests)

        async def one(example: Example) -> Target:
            async with free:
                ids = [*example.teacher_prompt, *example.answer]
                places = prompt_logprobs(await complete(exchange, self.scoring(ids, top_k)), len(ids))
            return read_target(places[len(example.teacher_prompt) :], example.answer, top_k, self.n_words)

        tasks = [asyncio.create_task(one(example)) for example in examples]
        try:
            return await asyncio.gather(*tasks)
        except EngineFailure as error:
            raise TeacherSilent(f"the teacher could not score texts: {error}") from error
        finally:
            for task in tasks:
                task.cancel()

    def scoring(self, prompt: str | list[int], top_k: int) -> dict[str, Any]:
        """A request for the log-probabilities of a prompt; the one token that must be written is of no use."""
        return {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": 1,
            "temperature": 1.0,
            "prompt_logprobs": top_k,
            "return_token_ids": True,
            "add_special_tokens": False,
        }


class ServedEngine:
    """The engine protocol over a served teacher: the chat is laid out and tokenized here, as the student reads it."""

    def __init__(self, source: ServedModel, tokenizer: Any) -> None:
        self._source = source
        self._tokenizer = tokenizer
        self._end = end_of_turn(tokenizer)
        self._exchange: Exchange | None = None
        self._free = asyncio.Semaphore(source.max_requests)

    async def start(self) -> None:
        """Open the connections."""
        self._exchange = self._source.connect()

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Answer]:
        """Answer one chat `sampling.n` times."""
        if self._exchange is None:
            raise EngineFailure("the engine was not started")
        async with self._free:
            body = self._body(encode_chat(self._tokenizer, messages), sampling)
            choices = (await complete(self._exchange, body))["choices"]
        return [self._answer(choice, sampling) for choice in choices]

    async def load_checkpoint(self, uri: str) -> None:
        """Refused: the weights are the server's."""
        raise EngineFailure(f"{self._source.at.at} serves the teacher and cannot load {uri}")

    async def stop(self) -> None:
        """Close the connections."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.close()

    def _body(self, prompt: list[int], sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._source.model,
            "prompt": prompt,
            "n": sampling.n,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "stop_token_ids": [self._end],
            "return_token_ids": True,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        return body

    def _answer(self, choice: Mapping[str, Any], sampling: Sampling) -> Answer:
        answer = Generated(list(choice["token_ids"]), is_truncated=choice.get("finish_reason") == "length")
        text = answer_text(self._tokenizer, answer, sampling.stop)
        return Answer(text, len(answer.token_ids), answer.is_truncated)


async def complete(exchange: Exchange, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a completion's answer. Raises EngineFailure."""
    response = await exchange.request("POST", "/completions", dict(body))
    if not response.is_success:
        raise EngineFailure(f"{exchange.url} refused: {reason(response)}")
    return read_completion(exchange, response)


def read_completion(exchange: Exchange, response: httpx2.Response) -> dict[str, Any]:
    """The same of an answer that is there. Raises EngineFailure where it is none."""
    try:
        found: dict[str, Any] = response.json()
        if found["choices"]:
            return found
    except (ValueError, KeyError, TypeError):
        pass
    raise EngineFailure(f"{exchange.url} sent no completion: {response.text[:200]!r}")


def prompt_logprobs(completion: Mapping[str, Any], n_tokens: int) -> list[dict[int, float]]:
    """What is listed at each place of a prompt of `n_tokens`; nothing at the first. Raises EngineFailure."""
    listed = completion["choices"][0].get("prompt_logprobs")
    if listed is None:
        raise EngineFailure("the server's answer has no prompt_logprobs")
    if len(listed) != n_tokens:
        raise EngineFailure(f"the server lists log-probabilities of {len(listed)} tokens for a prompt of {n_tokens}")
    return [{int(token): _logprob(told) for token, told in (place or {}).items()} for place in listed]


def read_target(places: Sequence[Mapping[int, float]], answer: Sequence[int], top_k: int, n_words: int) -> Target:
    """A target of listed log-probabilities. Raises EngineFailure where an answer's own token is not listed.

    Tokens beyond the tokenizer's `n_words` are padding of the teacher's head: they stay in the tail.
    """
    ids_A_K = np.full((len(answer), top_k + 1), -1, np.int32)
    logprobs_A_K = np.zeros(ids_A_K.shape, np.float32)
    for row, (place, own) in enumerate(zip(places, answer, strict=True)):
        if own not in place:
            raise EngineFailure(f"the server does not list token {own} in its own place, {row} of the answer")
        others = sorted((lp, token) for token, lp in place.items() if token != own and token < n_words)[::-1]
        listed = [(place[own], own), *others[:top_k]]
        ids_A_K[row, : len(listed)] = [token for _, token in listed]
        logprobs_A_K[row, : len(listed)] = [lp for lp, _ in listed]
    return Target(ids_A_K, logprobs_A_K)


def _logprob(told: Any) -> float:
    value = told["logprob"] if isinstance(told, Mapping) else told
    return LEAST_LOGPROB if value is None else max(float(value), LEAST_LOGPROB)
