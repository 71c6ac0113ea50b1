"""Whether a served teacher can teach this student, found out before a model is loaded or a device is held.

It must answer, know the model, list enough log-probabilities for each token of a prompt, in that token's place, and
mean by its token ids what the student means. Each failure says what to change.
"""

import asyncio
import math
from dataclasses import dataclass
from typing import Any

from paced.prompts import chat_text
from paced.wire import Message
from worker.distill.errors import ModelRefused, TeacherSilent
from worker.distill.teachers.served import ServedModel, prompt_logprobs, read_completion, read_target
from worker.distill.teachers.target import Target
from worker.rollout.engine import EngineFailure
from worker.rollout.exchange import Exchange, reason

PROBE = "Probe 12,345 + 67 = 12412.\n\tdef f(x): return x**2  # naïve café, 你好 🙂 Ω≈3.14 \\frac{1}{2}\n"
WITHIN_S = 60.0
CONNECT_S = 15.0  # in which a server that is just starting is asked again
SUM_SLACK = 1e-3  # by which float32 probabilities may add up to more than 1


@dataclass(frozen=True)
class Found:
    """What a preflight saw: the model's name, its longest sequence if it tells, and its targets of the probe."""

    model: str
    max_tokens: int | None
    n_listed: int
    probe_ids: list[int]
    probe: Target


def probe_text(tokenizer: Any) -> str:
    """Numbers, code, other scripts and the turns of a chat: what vocabularies differ in."""
    return PROBE + chat_text(tokenizer, [Message(role="user", content=PROBE)])


def preflight(source: ServedModel, tokenizer: Any, top_k: int, within_s: float = WITHIN_S) -> Found:
    """Prove that a served teacher returns what is needed, and give `source` the model's name.

    Raises TeacherSilent where nothing answers in time, ModelRefused where the answer will not do.
    """

    async def checked() -> Found:
        exchange = source.connect(timeout_s=within_s, retry_s=min(CONNECT_S, within_s / 2))
        try:
            async with asyncio.timeout(within_s):
                return await _checked(exchange, source, tokenizer, top_k)
        except TimeoutError as error:
            raise TeacherSilent(
                f"the teacher at {source.at.at} did not answer within {within_s:g} s: see whether its server is still "
                "loading the model, or busy, and start again"
            ) from error
        except EngineFailure as error:
            raise TeacherSilent(
                f"the teacher does not answer: {error} Start it, or mend the URL of `teacher`"
            ) from error
        finally:
            await exchange.close()

    return asyncio.run(checked())


async def _checked(exchange: Exchange, source: ServedModel, tokenizer: Any, top_k: int) -> Found:
    source.model, max_tokens = await _model(exchange, source)
    text = probe_text(tokenizer)
    ids = list(tokenizer.encode(text, add_special_tokens=False))
    body = source.scoring(text, top_k)
    response = await exchange.request("POST", "/completions", body)
    if not response.is_success:
        raise _refused(exchange, source, top_k, reason(response), response.status_code)
    completion = read_completion(exchange, response)
    _check_ids(exchange, source, completion["choices"][0].get("prompt_token_ids"), ids)
    response = await exchange.request("POST", "/completions", source.scoring(ids, top_k))
    if not response.is_success:
        raise _refused(exchange, source, top_k, reason(response), response.status_code)
    completion = read_completion(exchange, response)
    return _read(exchange, source, completion, ids, top_k, max_tokens)


async def _model(exchange: Exchange, source: ServedModel) -> tuple[str, int | None]:
    """The name to ask for, and the longest sequence it takes. Raises ModelRefused."""
    response = await exchange.request("GET", "/models", None)
    if response.status_code in (401, 403):
        raise _refused(exchange, source, 0, reason(response), response.status_code)
    try:
        served = {str(one["id"]): one.get("max_model_len") for one in response.json()["data"]}
    except (ValueError, KeyError, TypeError) as error:
        if source.model is not None:
            return source.model, None  # some services list no models
        raise ModelRefused(
            f"{exchange.url}/models lists no models ({reason(response)}): the URL must end in /v1, or say which with "
            "--set teacher_model=NAME"
        ) from error
    if source.model is None and len(served) == 1:
        return next(iter(served.items()))
    if source.model in served:
        return source.model, served[source.model]
    wanted = "several models, and none is chosen" if source.model is None else f"no model {source.model!r}"
    raise ModelRefused(
        f"{exchange.url} serves {wanted}: choose by --set teacher_model=NAME among {', '.join(sorted(served))}"
    )


def _check_ids(exchange: Exchange, source: ServedModel, theirs: Any, ours: list[int]) -> None:
    """Refuse a teacher that tokenizes the probe otherwise. Raises ModelRefused."""
    if theirs is None:
        raise ModelRefused(
            f"{exchange.url} does not say which token ids it reads (`return_token_ids`), so they cannot be compared "
            "with the student's: serve the teacher with vLLM 0.10.2 or newer"
        )
    if list(theirs) != ours:
        pairs = enumerate(zip(theirs, ours, strict=False))
        place = next((i for i, (their, our) in pairs if their != our), min(len(theirs), len(ours)))
        raise ModelRefused(
            f"the teacher {source.model} at {exchange.url} has another vocabulary than the student: of a probe the two "
            f"make {len(theirs)} and {len(ours)} tokens, which part at place {place} "
            f"({[*theirs][place : place + 3]} and {ours[place : place + 3]}). Choose a teacher of the same family"
        )


def _read(
    exchange: Exchange,
    source: ServedModel,
    completion: dict[str, Any],
    ids: list[int],
    top_k: int,
    max_tokens: int | None,
) -> Found:
    """What the teacher listed for the probe, looked at place by place. Raises ModelRefused."""
    try:
        places = prompt_logprobs(completion, len(ids))
        probe = read_target(places[1:], ids[1:], top_k, source.n_words)
    except EngineFailure as error:
        raise ModelRefused(
            f"{error}, so texts cannot be scored at {exchange.url}: serve the teacher with vLLM's OpenAI server "
            "(`vllm serve MODEL --max-logprobs K`), directly and not through a gateway that drops fields"
        ) from error
    n_listed = min(map(len, places[1:]))
    if n_listed < min(top_k, source.n_words - 1):
        raise ModelRefused(
            f"{exchange.url} lists only {n_listed} tokens in some place, not the {top_k} asked for: start it with "
            f"--max-logprobs {top_k}, or lower --set teacher_top_k={n_listed}"
        )
    most = max(sum(map(math.exp, place.values())) for place in places[1:])
    if most > 1 + SUM_SLACK:
        raise ModelRefused(
            f"the probabilities that {exchange.url} lists in one place add up to {most:.3f}: start vLLM with "
            "--logprobs-mode raw_logprobs, its default"
        )
    assert source.model is not None
    return Found(source.model, max_tokens, n_listed, ids, probe)


def _refused(exchange: Exchange, source: ServedModel, top_k: int, said: str, status: int) -> ModelRefused:
    if status in (401, 403):
        return ModelRefused(
            f"{exchange.url} wants another key ({said}): put it into the environment variable {source.at.key_env}"
        )
    if status == 404:
        return ModelRefused(
            f"{exchange.url} has no /completions, or no model {source.model!r} ({said}): chat alone does not tell "
            "log-probabilities of given texts; serve the teacher with vLLM"
        )
    if "logprobs" in said:
        return ModelRefused(
            f"{exchange.url} will not list {top_k} log-probabilities ({said}): start it with --max-logprobs {top_k}, "
            "or lower --set teacher_top_k"
        )
    return ModelRefused(f"{exchange.url} refused to score a probe: {said}")
