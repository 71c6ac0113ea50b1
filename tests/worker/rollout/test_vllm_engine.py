"""The vLLM engine with the real small model: answers, new weights in place, and no process left behind."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from demo.model import smollm2_folder
from paced.wire import Message
from tests.worker.rollout.world import MakeWorld, start, sums, wait_for
from worker.rollout.engine import Engine, EngineFailure, EngineOptions, Sampling, make_engine

pytestmark = [
    pytest.mark.model,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(torch|vllm|importlib)"),
    pytest.mark.filterwarnings("ignore::FutureWarning:(torch|vllm)"),
]

CHAT = [Message(role="user", content="Compute 7 * 8. Reply with the number only.")]
GREEDY = Sampling(n=3, temperature=0.0, top_p=1.0, top_k=0, max_tokens=24, stop=())
CACHE = Path(os.environ.get("PACED_CACHE", "~/.cache/paced")).expanduser()
ORPHANED = """
import asyncio
from worker.rollout.engine import EngineOptions, make_engine
async def main():
    engine = make_engine("vllm", EngineOptions(model={model!r}, max_model_len=512, max_num_seqs=8))
    await engine.start()
    print("started", flush=True)
    await asyncio.sleep(600)
if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler: a CPU engine is ready a minute sooner, about a tenth slower."""
    monkeypatch.setenv("VLLM_CPU_CI_ENV", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def model() -> str:
    return str(smollm2_folder(CACHE))


@pytest.fixture(scope="module")
def scaled(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same model with its last layers' weights scaled."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("scaled") / "step-1"
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    weights = {name: tensor * 0.5 if ".29." in name else tensor for name, tensor in weights.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


async def test_answers_reloads_and_leaves_no_process(model: str, scaled: str, tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    engine = make_engine("vllm", EngineOptions(model=model, max_model_len=512, max_num_seqs=16))
    await engine.start()
    try:
        first = await engine.generate(CHAT, GREEDY)
        assert len(first) == 3
        assert all(0 < answer.n_tokens <= 24 for answer in first)
        assert all(answer.is_truncated == (answer.n_tokens == 24) for answer in first)
        await _long_prompts_fail_alone(engine)
        await _misfits_leave_the_weights_alone(engine, model, tmp_path)
        assert (await engine.generate(CHAT, GREEDY))[0].text == first[0].text

        await engine.load_checkpoint(scaled)
        assert (await engine.generate(CHAT, GREEDY))[0].text != first[0].text
        await engine.load_checkpoint(model)
        assert (await engine.generate(CHAT, GREEDY))[0].text == first[0].text
        await _cancelled_work_frees_the_engine(engine)
    finally:
        await engine.stop()
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert [child for child in left if "resource_tracker" not in " ".join(child.cmdline())] == []


async def _long_prompts_fail_alone(engine: Engine) -> None:
    long = [Message(role="user", content="Compute 7 * 8. " * 200)]
    failed, fine = await asyncio.gather(
        engine.generate(long, GREEDY), engine.generate(CHAT, GREEDY), return_exceptions=True
    )
    assert isinstance(failed, EngineFailure)
    assert "the model takes 512" in str(failed)
    assert isinstance(fine, list)


async def _misfits_leave_the_weights_alone(engine: Engine, model: str, folder: Path) -> None:
    with pytest.raises(EngineFailure, match="there is no folder /nowhere"):
        await engine.load_checkpoint("/nowhere/step-1")
    misfit = folder / "misfit"
    shutil.copytree(model, misfit)
    config = json.loads((misfit / "config.json").read_text())
    (misfit / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 12}))
    with pytest.raises(EngineFailure, match="num_hidden_layers is 12, not 30"):
        await engine.load_checkpoint(str(misfit))


async def _cancelled_work_frees_the_engine(engine: Engine) -> None:
    endless = Sampling(n=8, temperature=1.0, top_p=1.0, top_k=0, max_tokens=450, stop=())
    task = asyncio.create_task(engine.generate(CHAT, endless))
    await asyncio.sleep(0.3)
    task.cancel()
    await asyncio.wait({task})
    started = time.monotonic()
    await engine.generate(CHAT, GREEDY)
    assert time.monotonic() - started < 20


def test_sigterm_while_loading_gives_the_lease_back_at_once(model: str, make_world: MakeWorld) -> None:
    world = make_world(sums(4), uri=model)
    worker = start(world, "--engine", "vllm")
    wait_for(lambda: world.measurement().n_leased > 0)
    time.sleep(8)  # vLLM is being imported, or starts its processes
    children = psutil.Process(worker.pid).children(recursive=True)
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=8)
    assert worker.returncode == 0, err
    assert world.measurement().n_leased == 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []


def test_a_killed_worker_takes_its_engine_along(model: str, tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(ORPHANED.format(model=model))
    owner = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."}
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "started\n"
    children = psutil.Process(owner.pid).children(recursive=True)
    assert any("VLLM" in " ".join(child.cmdline()) for child in children)
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
