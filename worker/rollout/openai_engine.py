"""A student behind any OpenAI-compatible URL (vLLM, SGLang, llama.cpp, a hosted service).

Which weights answer is the server's business. `model` is the served name; with `{uri}` or `{name}` (the last part of
the URI) in it, each checkpoint is asked for by its own name, as servers with several models or adapters allow. A fixed
name serves one checkpoint: the first one is taken to be it, a later one is refused.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx2
import stamina

from paced.wire import Message
from worker.rollout.engine import Answer, EngineDown, EngineFailure, EngineOptions, Sampling

RETRIED_STATUS = frozenset({408, 429, 500, 502, 503, 504})
REFUSED_STATUS = frozenset({401, 403, 404})  # no prompt will fare better
MAX_RETRY_AFTER_S = 60.0


class _Busy(Exception):
    """An answer that asks for another try."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.retry_after_s = _seconds(response.headers.get("Retry-After"))


class OpenaiEngine:
    """Asks for chat completions; 429, 5xx and lost connections are tried again for `retry_s`."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._model = options.model or "{uri}"
        self._served: str | None = None
        self._uri: str | None = None
        self._has_n = True
        self._http: httpx2.AsyncClient | None = None

    async def start(self) -> None:
        """Open the connections; raises EngineDown when no server answers."""
        key = self._options.openai_key
        self._http = httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(self._options.timeout_s, connect=10.0),
            limits=httpx2.Limits(max_connections=None),  # the rollout loop bounds what is in flight
        )
        if "{" not in self._model:
            self._served = self._model
        await self._exchange("GET", "/models", None)

    async def stop(self) -> None:
        """Close the connections."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

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
        response = await self._exchange("POST", "/chat/completions", body | ({"n": n} if n > 1 else {}))
        if n > 1 and response.status_code in (400, 422):
            return []  # perhaps because of n: one by one will tell
        if not response.is_success:
            raise EngineFailure(f"{self._options.openai_url} refused the prompt: {_reason(response)}")
        answers = _read(response)
        if not answers:
            raise EngineFailure(f"{self._options.openai_url} sent no choices: {response.text[:200]!r}")
        return answers

    async def _exchange(self, method: str, path: str, body: dict[str, Any] | None) -> httpx2.Response:
        try:
            response = await self._retried(method, path, body)
        except _Busy as error:
            raise EngineFailure(f"{self._options.openai_url} stays busy: {_reason(error.response)}") from error
        except httpx2.ReadTimeout as error:
            raise EngineFailure(f"no answer from the server in {self._options.timeout_s:.0f} s") from error
        except httpx2.TransportError as error:
            raise EngineDown(
                f"no answer from {self._options.openai_url} ({type(error).__name__}: {error}); is the server running?"
            ) from error
        if response.status_code in REFUSED_STATUS and method == "POST":
            raise EngineDown(f"{self._options.openai_url} will not serve {self._served!r}: {_reason(response)}")
        return response

    async def _retried(self, method: str, path: str, body: dict[str, Any] | None) -> httpx2.Response:
        if self._http is None:
            raise EngineFailure("the engine was not started")
        url = self._options.openai_url.rstrip("/") + path
        attempts = stamina.retry_context(
            on=_backoff, attempts=None, timeout=self._options.retry_s, wait_initial=0.2, wait_max=10.0, wait_jitter=0.5
        )
        async for attempt in attempts:
            with attempt:
                response = await self._http.request(method, url, json=body)
                if response.status_code in RETRIED_STATUS:
                    raise _Busy(response)
                return response
        raise AssertionError("stamina either returns or raises")


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


def _backoff(error: Exception) -> bool | float:
    if isinstance(error, _Busy):
        return True if error.retry_after_s is None else error.retry_after_s
    return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.ReadTimeout)


def _seconds(header: str | None) -> float | None:
    try:
        return min(max(float(header), 0.0), MAX_RETRY_AFTER_S) if header is not None else None
    except ValueError:
        return None


def _reason(response: httpx2.Response) -> str:
    try:
        error = response.json()["error"]
        return f"HTTP {response.status_code}: {error['message'] if isinstance(error, dict) else error}"
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}: {response.text[:200]!r}"
