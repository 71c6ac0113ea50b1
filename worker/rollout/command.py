"""The command `paced rollout`: options in, exit code out."""

import asyncio
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from paced.client import Client
from worker.grading import GraderPool
from worker.rollout import threads
from worker.rollout.engine import EngineFailure, EngineOptions, make_engine
from worker.rollout.loop import LoopOptions, RolloutLoop
from worker.rollout.progress import configure_logs, shown, summary
from worker.rollout.tally import Tally

CLIENT_RETRY_S = 5.0  # the loop itself tries on; a short inner retry lets it say so early


class EngineKind(StrEnum):
    """What answers the prompts."""

    VLLM = "vllm"
    OPENAI = "openai"
    SCRIPTED = "scripted"


@dataclass(frozen=True, slots=True)
class Setup:
    """Everything that one worker is made from."""

    engine_kind: str
    engine: EngineOptions
    loop: LoopOptions
    n_graders: int
    grading_deadline_s: float
    url: str | None
    key: str | None


def rollout(
    student: Annotated[str, typer.Argument(help="The student whose problems to answer.")],
    measurement: Annotated[
        str | None, typer.Option(help="Only this measurement; all of the student's if left out.")
    ] = None,
    engine: Annotated[
        EngineKind, typer.Option(help="What answers: vLLM here, an OpenAI-style URL, or a script.")
    ] = EngineKind.VLLM,
    model: Annotated[
        str | None,
        typer.Option(
            help="vllm: folder or hub name to start from; the first lease's checkpoint if left out. "
            "openai: the served name, which may hold {uri} or {name} of the checkpoint."
        ),
    ] = None,
    openai_url: Annotated[str, typer.Option(help="Base URL for --engine openai.")] = EngineOptions.openai_url,
    openai_key: Annotated[str | None, typer.Option(envvar="OPENAI_API_KEY", help="Its key.")] = None,
    max_problems: Annotated[int, typer.Option(min=1, max=4096, help="Problems a lease.")] = LoopOptions.max_problems,
    ttl_s: Annotated[
        float, typer.Option(min=1, help="A lease's life; it is renewed every third of it.")
    ] = LoopOptions.ttl_s,
    n_groups: Annotated[int, typer.Option(min=1, help="Problems in the engine at once.")] = LoopOptions.n_groups,
    max_num_seqs: Annotated[
        int, typer.Option(min=1, help="vllm: answers generated at once.")
    ] = EngineOptions.max_num_seqs,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="vllm: tokens of prompt and answer; the model's own limit if left out.")
    ] = None,
    kv_cache_gib: Annotated[
        float, typer.Option(help="vllm on a CPU: memory of the KV cache.")
    ] = EngineOptions.kv_cache_gib,
    gpu_memory_utilization: Annotated[
        float, typer.Option(help="vllm on a GPU: share of its memory.")
    ] = EngineOptions.gpu_memory_utilization,
    tensor_parallel_size: Annotated[
        int, typer.Option(min=1, help="vllm: GPUs for one model.")
    ] = EngineOptions.tensor_parallel_size,
    delay_s: Annotated[float, typer.Option(min=0, help="scripted: seconds an answer takes.")] = EngineOptions.delay_s,
    graders: Annotated[int, typer.Option(min=1, help="Grading processes.")] = 2,
    grading_deadline_s: Annotated[float, typer.Option(min=0.1, help="Seconds for one answer's grading.")] = 5.0,
    seed: Annotated[int | None, typer.Option(help="Draw repeatable answers; random if left out.")] = None,
    worker: Annotated[str | None, typer.Option(help="This worker's name; host/process if left out.")] = None,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="Exit when nothing is due.")] = False,
    url: Annotated[str | None, typer.Option(envvar="PACED_URL", help="The service.")] = None,
    key: Annotated[str | None, typer.Option(envvar="PACED_KEY", help="An API key with the scope rollout.")] = None,
    is_json: Annotated[bool, typer.Option("--json", help="Print the final counters as JSON.")] = False,
) -> None:
    """Answer and grade problems of a student until stopped.

    Ctrl-C or SIGTERM reports what is graded, hands the rest back and exits with 0; a second one exits at once.
    Exit code 1: the engine or the service ended the work, and the message says why.
    """
    options = EngineOptions(
        model=model,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        kv_cache_gib=kv_cache_gib,
        gpu_memory_utilization=gpu_memory_utilization,
        tensor_parallel_size=tensor_parallel_size,
        openai_url=openai_url,
        openai_key=openai_key,
        delay_s=delay_s,
        seed=seed,
    )
    loop = LoopOptions(
        student=student,
        worker=worker or f"{socket.gethostname()}/{os.getpid()}",
        measurement_id=measurement,
        max_problems=max_problems,
        ttl_s=ttl_s,
        n_groups=n_groups,
        is_until_idle=until_idle,
        seed=seed,
    )
    console = Console(stderr=True)
    configure_logs(console)
    tally = asyncio.run(_work(Setup(engine.value, options, loop, graders, grading_deadline_s, url, key), console))
    console.print(tally.failure or f"done: {summary(tally)}", markup=False, highlight=False, soft_wrap=True)
    if is_json:
        typer.echo(json.dumps(tally.as_dict()))
    _exit(0 if tally.failure is None else 1)


def _exit(code: int) -> NoReturn:
    if threads.is_any_running():  # an abandoned call in C code would abort Python's own way out
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise typer.Exit(code)


async def _work(setup: Setup, console: Console) -> Tally:
    tally = Tally()
    try:
        engine = make_engine(setup.engine_kind, setup.engine)
    except EngineFailure as error:
        tally.failure = str(error)
        return tally
    with Client(setup.url, setup.key, retry_s=CLIENT_RETRY_S) as client:
        async with GraderPool(n_workers=setup.n_graders, deadline_s=setup.grading_deadline_s) as pool:
            loop = RolloutLoop(client, engine, pool, setup.loop, tally)
            _obey_signals(loop)
            async with shown(tally, console):
                await loop.run()
            tally.grading = pool.stats().as_dict()
    return tally


def _obey_signals(loop: RolloutLoop) -> None:
    n_signals = 0

    def obey() -> None:
        nonlocal n_signals
        n_signals += 1
        if n_signals > 1:
            os._exit(130)  # no clean-up: the engine's guard and the service's lease expiry see to the rest
        loop.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, obey)
