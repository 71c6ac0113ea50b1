"""`paced distill --check`, and the parity of a served teacher with the same weights here."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from demo.model import smollm2_folder
from demo.processes import free_port
from paced.cli import build as build_cli
from tests.worker.distill.serving import Serving, serving
from tests.worker.distill.tiny import tiny_folder

CACHE = Path(os.environ.get("PACED_CACHE", "~/.cache/paced")).expanduser()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Serving]:
    with serving(tiny_folder(tmp_path / "teacher", seed=1)) as running:
        yield running


def check(student: Path, *arguments: str) -> tuple[int, str, str]:
    fixed = ["distill", "--check", "--student", str(student), "--device", "cpu"]
    done = CliRunner().invoke(build_cli(), [*fixed, *arguments])
    return done.exit_code, done.stdout, done.stderr


def checked(student: Path, *arguments: str) -> dict[str, Any]:
    code, out, err = check(student, "--json", *arguments)
    assert code == 0, err
    (row,) = json.loads(out)["teachers"]
    return dict(row)


def test_served_and_local_teacher_agree_at_step_0(server: Serving, student: Path) -> None:
    more = ("--teacher", server.url, "--set", "teacher_top_k=12", "--set", "dtype=float32")
    row = checked(student, *more, "--parity", str(server.folder))
    assert (row["model"], row["n_listed"], row["max_tokens"]) == ("teacher", 12, 1024)
    seen = row["parity"]
    assert seen["logprob_max"] < 1e-4
    assert seen["same_first_share"] == 1
    assert seen["loss_served"] == pytest.approx(seen["loss_local"], abs=1e-5)
    assert 0 < seen["loss_local"] < seen["loss_whole"]


def test_other_weights_show(server: Serving, student: Path, tmp_path: Path) -> None:
    other = tiny_folder(tmp_path / "other", seed=3)
    row = checked(student, "--teacher", server.url, "--set", "dtype=float32", "--parity", str(other))
    assert row["parity"]["logprob_max"] > 1
    assert row["parity"]["same_first_share"] < 0.9


def test_a_check_says_what_it_found_or_what_to_mend(server: Serving, student: Path, tmp_path: Path) -> None:
    code, out, _ = check(student, "--teacher", server.url, "--parity", str(server.folder))
    assert code == 0
    assert "can teach this student (teacher, 20 tokens listed in each place)" in out
    assert "log-probabilities differ by" in out
    assert "can teach this student (its folder" in check(student)[1]
    code, _, err = check(student, "--parity", str(server.folder))
    assert (code, "no teacher is a URL" in err) == (1, True)
    code, _, err = check(student, "--teacher", server.url, "--set", "teacher_top_k=90")
    assert (code, "--max-logprobs 90" in " ".join(err.split())) == (1, True)
    code, _, err = check(student, "--teacher", str(tmp_path / "absent"))
    assert (code, "is not a Hugging Face model folder" in " ".join(err.split())) == (1, True)


@pytest.fixture
def vllm_url(tmp_path: Path) -> Iterator[str]:
    """vLLM's own OpenAI server with the demo's model, on the CPU."""
    port = free_port(0)
    module = "vllm.entrypoints.openai.api_server"
    options = ["--port", str(port), "--host", "127.0.0.1", "--max-model-len", "512", "--max-num-seqs", "4"]
    fast = {"VLLM_CPU_CI_ENV": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    log = tmp_path / "vllm.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", module, "--model", str(smollm2_folder(CACHE)), *options],
            stdout=file, stderr=file, env={**os.environ, **fast}, start_new_session=True,
        )  # fmt: skip
    url, deadline = f"http://127.0.0.1:{port}/v1", time.monotonic() + 240
    try:
        while True:
            assert server.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            try:
                if httpx2.get(f"{url}/models").is_success:
                    break
            except httpx2.TransportError:
                time.sleep(0.2)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(400)
def test_vllms_own_server_passes_and_agrees(vllm_url: str) -> None:
    folder = smollm2_folder(CACHE)
    seen = checked(folder, "--teacher", vllm_url, "--parity", str(folder))["parity"]
    assert seen["same_first_share"] > 0.9
    assert seen["logprob_mean"] < 0.2  # both round logits to bfloat16, by kernels of their own
    assert seen["loss_served"] < 0.02  # the student is this teacher
    code, _, err = check(folder, "--teacher", vllm_url, "--set", "teacher_top_k=64")
    assert (code, "--max-logprobs 64" in " ".join(err.split())) == (1, True)
