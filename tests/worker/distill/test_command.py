"""`paced distill` as a process: its report, its exit codes, and what a signal does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from paced import Client
from tests.service import ADMIN_KEY
from tests.worker.distill.world import losses, make_curriculum

FAST = ("--batch-size", "4", "--engine", "transformers", "--no-wait-for-measurement", "--device", "cpu")
SETTINGS = ("--set", "dtype=float32", "--set", "teacher_attempts=1", "--set", "drop_wrong_references=false")


def start(client: Client, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "paced", "distill", *arguments],
        env={**os.environ, "PACED_URL": client.url, "PACED_KEY": ADMIN_KEY, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(file: Path, n_lines: int) -> None:
    deadline = time.monotonic() + 120
    while not file.exists() or len(file.read_text().splitlines()) < n_lines:
        assert time.monotonic() < deadline, f"{file} never held {n_lines} lines"
        time.sleep(0.01)


def finished(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


@pytest.mark.slow
def test_killed_stopped_and_resumed_to_a_report(sqlite_client: Client, student: Path, tmp_path: Path) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path, schedule=[{"stage": "forward_kl", "steps": 400}])
    out = tmp_path / "out"
    arguments = (
        "--curriculum",
        curriculum.curriculum_id,
        "--student",
        str(student),
        "--out",
        str(out),
        *FAST,
        *SETTINGS,
    )

    first = start(sqlite_client, *arguments, "--save-every", "2")
    wait_for(out / "metrics.jsonl", 5)
    first.kill()
    assert finished(first)[0] == -signal.SIGKILL

    second = start(sqlite_client, *arguments, "--save-every", "2")
    wait_for(out / "metrics.jsonl", 8)
    second.send_signal(signal.SIGTERM)
    code, _, err = finished(second)
    assert code == 128 + signal.SIGTERM
    assert "the same command resumes there" in err

    n_done = len(losses(out))
    code, text, err = finished(start(sqlite_client, *arguments, "--max-steps", str(n_done + 2), "--json"))
    assert code == 0, err
    report: dict[str, Any] = json.loads(text.splitlines()[-1])
    assert (report["resumed_at"], report["n_steps"]) == (n_done, n_done + 2)
    assert len(losses(out)) == n_done + 2


def test_wrong_settings_end_with_a_plain_line(sqlite_client: Client, tmp_path: Path) -> None:
    code, out, err = finished(
        start(sqlite_client, "--curriculum", "cur_1", "--student", str(tmp_path), "--batch-size", "0")
    )
    assert (code, out) == (1, "")
    assert "batch_size: Input should be greater than or equal to 1" in err
    assert "Traceback" not in err


def test_a_folder_without_a_model_ends_with_a_plain_line(sqlite_client: Client, tmp_path: Path) -> None:
    curriculum = make_curriculum(sqlite_client, tmp_path)
    arguments = ("--curriculum", curriculum.curriculum_id, "--student", str(tmp_path), "--out", str(tmp_path / "out"))
    code, _, err = finished(start(sqlite_client, *arguments))
    assert code == 1
    assert "is not a Hugging Face model folder" in err
    assert "Traceback" not in err


def test_parity_is_a_part_of_the_check(sqlite_client: Client, tmp_path: Path) -> None:
    code, _, err = finished(start(sqlite_client, "--student", str(tmp_path), "--parity", str(tmp_path)))
    assert code == 2
    assert "trains nothing: give both" in " ".join(err.replace("│", " ").split())
