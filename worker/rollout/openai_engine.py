"""A student behind any OpenAI-compatible URL (vLLM, SGLang, llama.cpp, a hosted service).

Which weights answer is the server's business. `model` is the served name; with `{uri}` or `{name}` (the last part of
the URI) in it, each checkpoint is asked for by its own name, as servers with several models or adapters allow. A fixed
name serves one checkpoint: the first one is taken to be it, a later one is refused.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx2

from paced.wire import Message
from worker.rollout.engine import Answer, EngineDown, EngineFailure, EngineOptions, Sampling
from worker.rollout.exchange import Exchange, reason

REFUSED_STATUS = frozenset({401, 403, 404})  # no prompt will fare better


class OpenaiEngine:
    """Asks for chat completions; 429, 5xx and lost connections are tried again for `retry_s`."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._model = options.model or "{uri}"
        self._served: str | None = None
        self._uri: str | None = None
        self._has_n = True
        self._exchange: Exchange | None = None

    async def start(self) -> None:
        """Open the connections; raises EngineDown when no server answers."""
        options = self._options
        self._exchange = Exchange(options.openai_url, options.openai_key, options.timeout_s, options.retry_s)
        if "{" not in self._model:
            self._served = self._model
        await self._request("GET", "/models", None)

    async def stop(self) -> None:
        """Close the connections."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.close()

    async def load_checkpoint(self, uri: str) -> None:
        """Ask for the checkpoint's own model name from now on, or refuse where the name is fixed."""
        if "{" not in self._model and self._uri not in (None, uri):
            raise EngineFailure(
                f"{self._options.openai_url} serves the model {self._model!r}, taken to be {self._uri}, and cannot be "
                f"told to load {uri}. Serve it there and restart this worker, or give --model with {{name}} or {{uri}}."
            )
        self._uri = uri
        self._served = self._model.replace("{uri}", uri).replace("{name}", uri.rstrip("/").rpartition("/")[2])

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Answer]:
        """Answer one chat; servers that give one answer a request are asked `n` times."""
        if self._served is None:
            raise EngineFailure("no checkpoint was loaded, so the served model has no name yet")
        body = self._body(messages, sampling)
        answers = await self._answers(body, sampling.n) if self._has_n or sampling.n == 1 else []
        if len(answers) < sampling.n:
            answers += await self._singles(body, sampling.n - len(answers))
            self._has_n = False  # only now: a refused prompt says nothing about n
        return answers[: sampling.n]

    async def _singles(self, body: dict[str, Any], n: int) -> list[Answer]:
        bodies = [body | ({"seed": body["seed"] + 1 + position} if "seed" in body else {}) for position in range(n)]
        tasks = [asyncio.create_task(self._answers(each, 1)) for each in bodies]
        try:
            return [answers[0] for answers in await asyncio.gather(*tasks)]
        finally:
            for task in tasks:
                task.cancel()

    def _body(self, messages: Sequence[Message], sampling: Sampling) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._served,
            "messages": [message.model_dump() for message in messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.top_k:
            body["top_k"] = sampling.top_k  # not OpenAI's own, but vLLM's, SGLang's and llama.cpp's
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        return body

    async def _answers(self, body: dict[str, Any], n: int) -> list[Answer]:
        response = await self._request("POST", "/chat/completions", body | ({"n": n} if n > 1 else {}))
        if n > 1 and response.status_code in (400, 422):
            return []  # perhaps because of n: one by one will tell
        if not response.is_success:
            raise EngineFailure(f"{self._options.openai_url} refused the prompt: {reason(response)}")
        answers = _read(response)
        if not answers:
            raise EngineFailure(f"{self._options.openai_url} sent no choices: {response.text[:200]!r}")
        return answers

    async def _request(self, method: str, path: str, body: dict[str, Any] | None) -> httpx2.Response:
        if self._exchange is None:
            raise EngineFailure("the engine was not started")
        response = await self._exchange.request(method, path, body)
        if response.status_code in REFUSED_STATUS and method == "POST":
            raise EngineDown(f"{self._options.openai_url} will not serve {self._served!r}: {reason(response)}")
        return response


def _read(response: httpx2.Response) -> list[Answer]:
    """The answers of one response; token counts are exact for one choice, shared by length among several."""
    try:
        content = response.json()
        choices = [choice for choice in content["choices"] if choice.get("message")]
        texts = [choice["message"].get("content") or "" for choice in choices]
        is_cut = [choice.get("finish_reason") == "length" for choice in choices]
        n_total = int((content.get("usage") or {}).get("completion_tokens") or 0)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineFailure(f"the server's answer is not a chat completion: {response.text[:200]!r}") from error
    counts = _shares(n_total, [len(text) for text in texts])
    return [Answer(text, count, cut) for text, count, cut in zip(texts, counts, is_cut, strict=True)]


def _shares(n_total: int, lengths: Sequence[int]) -> list[int]:
    """Whole numbers proportional to the lengths that add up to the total."""
    shares, n_left, length_left = [], n_total, sum(lengths) + len(lengths)
    for length in lengths:
        share = round(n_left * (length + 1) / length_left)
        shares.append(share)
        n_left, length_left = n_left - share, length_left - length - 1
    return shares
