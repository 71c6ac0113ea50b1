"""Tokens a second of the rollout worker against plain vLLM: the same model, prompts, K, and settings of the engine.

Plain is `vllm.LLM.generate` on all prompts at once, nothing else. The worker is the real loop: leases from a real
service over HTTP, vLLM, grading in processes, reports stored in SQLite; its clock runs from the first claim until the
service says that nothing is due. Each round gives each side a process of its own, in turns, with the model loaded and
warmed up before the clock starts. All processes share this machine's cores.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from demo.model import smollm2_folder
from paced import Client, wire
from paced.prompts import chat_messages, chat_text
from worker.grading import GraderPool
from worker.precision import resolved
from worker.rollout.engine import Engine, EngineOptions, Sampling, make_engine
from worker.rollout.loop import LoopOptions, RolloutLoop
from worker.rollout.vllm_engine import bound_cores, memory_options

CACHE = Path(os.environ.get("PACED_CACHE", "~/.cache/paced")).expanduser()
STUDENT = "smollm2"
K = 8
MAX_NUM_SEQS = 64
MAX_MODEL_LEN = 1024
PROFILE = wire.ProfileCreate(temperature=0.6, top_p=0.95, max_tokens=96)
WARM_UP = 4  # prompts
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make_problems(n: int, seed: int) -> list[tuple[str, str]]:
    """Word problems in the manner of GSM8K, with their answers."""
    rng = random.Random(seed)
    things = ["apples", "pencils", "stamps", "marbles", "cookies", "tickets"]
    names = ["Anna", "Ben", "Chidi", "Dana", "Emil", "Fatima"]
    problems = []
    for _ in range(n):
        name, thing = rng.choice(names), rng.choice(things)
        start, n_bags, each, given = rng.randint(3, 90), rng.randint(2, 9), rng.randint(2, 12), rng.randint(1, 20)
        prompt = (
            f"{name} has {start} {thing}, buys {n_bags} bags with {each} {thing} in each, and gives {given} away. "
            f"How many {thing} does {name} have now? Answer in one short sentence."
        )
        problems.append((prompt, str(start + n_bags * each - given)))
    return problems


def run(small: bool) -> dict[str, Any]:
    """Both sides in turns; `small` takes about four minutes on two idle cores."""
    n_problems, n_rounds, n_repeats = (16, 2, 2) if small else (32, 4, 3)
    smollm2_folder(CACHE)
    sides = ["plain", "worker"]
    rows = []
    for round_ in range(n_rounds):
        for side in sides if round_ % 2 == 0 else reversed(sides):
            rows += [
                {"round": round_, **row} for row in _in_process(side, n_problems, n_repeats, is_compiled=not small)
            ]
    per_s = {side: statistics.median(row["tokens_per_s"] for row in rows if row["side"] == side) for side in sides}
    return {
        "settings": {
            "model": "SmolLM2-135M-Instruct",
            "dtype": resolved("auto", DEVICE),
            "n_problems": n_problems,
            "n_rollouts": K,
            "max_tokens": PROFILE.max_tokens,
            "temperature": PROFILE.temperature,
            "max_num_seqs": MAX_NUM_SEQS,
            "is_compiled": not small,
            "rounds": n_rounds,
            "repeats": n_repeats,
            "service": "SQLite, same machine",
        },
        "rows": rows,
        "figures": {
            "tokens_per_s_ratio": per_s["worker"] / per_s["plain"],
            "tokens_per_s_worker": per_s["worker"],
            "tokens_per_s_plain": per_s["plain"],
        },
    }


def _in_process(side: str, n_problems: int, n_repeats: int, *, is_compiled: bool) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.rollout", side, str(n_problems), str(n_repeats)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=_environment(is_compiled))
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def _environment(is_compiled: bool) -> dict[str, str]:
    """For both sides alike; without vLLM's compiler a CPU engine is ready a minute sooner and about a tenth slower."""
    quick = {} if is_compiled else {"VLLM_CPU_CI_ENV": "1"}
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        **bound_cores(),
        **quick,
    }


def _row(side: str, n_tokens: int, seconds: float, **more: Any) -> dict[str, Any]:
    row = {"side": side, "n_tokens": n_tokens, "seconds": seconds, "tokens_per_s": n_tokens / seconds}
    return {**row, "load_average": os.getloadavg()[0], **more}


def plain(n_problems: int, n_repeats: int) -> list[dict[str, Any]]:
    """Generate with vLLM alone."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=str(smollm2_folder(CACHE)),
        dtype=resolved("auto", DEVICE),
        max_num_seqs=MAX_NUM_SEQS,
        max_model_len=MAX_MODEL_LEN,
        **memory_options(EngineOptions(model="")),
        enable_prefix_caching=True,
        generation_config="vllm",
        seed=random.randrange(2**31),
    )
    sampling = SamplingParams(n=K, temperature=PROFILE.temperature, top_p=PROFILE.top_p, max_tokens=PROFILE.max_tokens)
    rows = []
    llm.generate(_rendered(llm.get_tokenizer(), WARM_UP, seed=0), sampling, use_tqdm=False)
    for repeat in range(n_repeats):
        prompts = _rendered(llm.get_tokenizer(), n_problems, seed=repeat + 1)
        started = time.perf_counter()
        outputs = llm.generate(prompts, sampling, use_tqdm=False)
        seconds = time.perf_counter() - started
        rows.append(_row("plain", sum(len(one.token_ids) for output in outputs for one in output.outputs), seconds))
    return rows


def _rendered(tokenizer: Any, n: int, seed: int) -> list[dict[str, Any]]:
    texts = [chat_text(tokenizer, chat_messages(prompt, _profile())) for prompt, _ in make_problems(n, seed)]
    return [{"prompt_token_ids": tokenizer.encode(text, add_special_tokens=False)} for text in texts]


def _profile() -> wire.Profile:
    return wire.Profile(profile_id="sp_bench", created_at="1970-01-01T00:00:00Z", **PROFILE.model_dump())


class _Running:
    """An engine that was started before, and outlives each loop."""

    def __init__(self, engine: Engine) -> None:
        self.generate, self.load_checkpoint = engine.generate, engine.load_checkpoint

    async def start(self) -> None:
        """It runs already."""

    async def stop(self) -> None:
        """It is needed again."""


def worker(n_problems: int, n_repeats: int) -> list[dict[str, Any]]:
    """Measure problem sets of a service with the rollout loop."""
    with tempfile.TemporaryDirectory() as folder, _service(Path(folder)) as client:
        measurements = [_prepare(client, Path(folder), n_problems, seed=i + 1) for i in range(n_repeats)]
        return asyncio.run(_work(client, measurements))


async def _work(client: Client, measurements: list[str]) -> list[dict[str, Any]]:
    options = EngineOptions(model=str(smollm2_folder(CACHE)), max_num_seqs=MAX_NUM_SEQS, max_model_len=MAX_MODEL_LEN)
    engine = make_engine("vllm", options)
    rows = []
    try:
        await engine.start()
        sampling = Sampling(K, PROFILE.temperature, PROFILE.top_p, PROFILE.top_k, PROFILE.max_tokens, ())
        warm_up = [chat_messages(prompt, _profile()) for prompt, _ in make_problems(WARM_UP, seed=0)]
        await asyncio.gather(*(engine.generate(messages, sampling) for messages in warm_up))
        async with GraderPool(n_workers=1) as pool:
            for measurement_id in measurements:
                loop = RolloutLoop(client, _Running(engine), pool, _loop_options(measurement_id))
                started = time.perf_counter()
                tally = await loop.run()
                seconds = time.perf_counter() - started
                assert tally.failure is None, tally.failure
                rows.append(
                    _row("worker", tally.n_tokens, seconds, in_engine_s=tally.busy_s, verdicts=dict(tally.verdicts))
                )
    finally:
        await engine.stop()
    return rows


def _loop_options(measurement_id: str) -> LoopOptions:
    return LoopOptions(
        student=STUDENT,
        worker="bench",
        measurement_id=measurement_id,
        max_problems=16,
        n_groups=2 * MAX_NUM_SEQS // K,
        is_until_idle=True,
    )


def _prepare(client: Client, folder: Path, n_problems: int, seed: int) -> str:
    name = f"words-{seed}"
    path = folder / f"{name}.jsonl"
    rows = [json.dumps({"prompt": prompt, "answer": answer}) for prompt, answer in make_problems(n_problems, seed)]
    path.write_text("\n".join(rows) + "\n")
    client.create_problem_set(wire.ProblemSetCreate(name=name, grader=wire.GraderName.MATH))
    client.import_problems(name, path)
    client.create_student(wire.StudentCreate(name=STUDENT))
    if client.student(STUDENT).latest_checkpoint is None:
        client.register_checkpoint(STUDENT, wire.CheckpointCreate(uri=str(smollm2_folder(CACHE))))
    profile = client.create_profile(PROFILE)
    body = wire.MeasurementCreate(student=STUDENT, problem_set=name, profile_id=profile.profile_id, n_rollouts=K)
    return client.create_measurement(body).measurement_id


@contextlib.contextmanager
def _service(folder: Path) -> Iterator[Client]:
    command = [sys.executable, "-m", "paced", "serve", "--data", str(folder / "data"), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline())
            with Client(said["url"], _admin_key(Path(said["key_file"]))) as client:
                yield client
        finally:
            process.terminate()


def _admin_key(file: Path) -> str:
    deadline = time.monotonic() + 30
    while not file.is_file():
        assert time.monotonic() < deadline, f"the service wrote no {file}"
        time.sleep(0.05)
    return file.read_text().strip()


def main() -> None:
    """Run one side in this process: `python -m benchmarks.rollout worker 24 2`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("side", choices=["plain", "worker"])
    parser.add_argument("n_problems", type=int)
    parser.add_argument("n_repeats", type=int)
    given = parser.parse_args()
    sides = {"plain": plain, "worker": worker}
    print(json.dumps(sides[given.side](given.n_problems, given.n_repeats)))


if __name__ == "__main__":
    main()
