"""The guard against orphans, on processes of our own that spawn as vLLM's do."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

OWNER = """
import multiprocessing, os, sys, time
from worker.rollout.guard import Guard

def grandchild():
    time.sleep(600)

def child(queue):
    process = multiprocessing.get_context("spawn").Process(target=grandchild)
    process.start()
    queue.put((os.getpid(), process.pid))
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    guard = Guard()
    queue = context.Queue()
    context.Process(target=child, args=(queue,)).start()
    pids = queue.get()
    if "launching" in sys.argv:
        time.sleep(1)
        print(*pids, flush=True)
        time.sleep(600)
    guard.started()
    print(*pids, flush=True)
    if "close" in sys.argv:
        sys.stdin.readline()
        guard.close()
        print("closed", flush=True)
    time.sleep(600)
"""


def are_gone(pids: list[int], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("when", ["launching", "running", "close"])
def test_no_process_outlives_its_owner(tmp_path: Path, when: str) -> None:
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    command = [sys.executable, str(script), when]
    environment = {"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"}
    pids: list[int] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as owner:
        assert owner.stdout is not None
        assert owner.stdin is not None
        try:
            pids += [int(word) for word in owner.stdout.readline().split()]
            assert len(pids) == 2
            assert all(psutil.pid_exists(pid) for pid in pids)
            if when == "close":
                owner.stdin.write("\n")
                owner.stdin.flush()
                assert owner.stdout.readline() == "closed\n"
                assert are_gone(pids, timeout_s=0.5)
            owner.send_signal(signal.SIGKILL)
            assert are_gone(pids)
        finally:
            for pid in [owner.pid, *pids]:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
