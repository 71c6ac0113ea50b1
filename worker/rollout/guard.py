"""Kills an engine's processes when their owner is gone, however it went.

vLLM's engine process outlives a killed parent and keeps the memory. A guard is a small process that waits on a pipe
held open by the owner. While the engine starts, it notes the processes that the owner spawns through multiprocessing
and all below them; when the pipe closes (stop, crash, kill -9), it kills them. Reads /proc: Linux only, like vLLM.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

SCAN_S = 0.2
N_QUIET_SCANS = 2
SPAWNED = (b"multiprocessing.spawn", b"VLLM::")  # a command line before and after vLLM renames its process


class Guard:
    """Watches over what this process spawns until `started()`; acts on `close()` or at the end of this process."""

    def __init__(self) -> None:
        # A session of its own: Ctrl-C and a killed process group pass it by.
        self._process = subprocess.Popen(  # noqa: S603 - our own file
            [sys.executable, "-S", "-E", __file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._pipe, self._answers = self._process.stdin, self._process.stdout
        self._answers.readline()  # it watches from here on

    def started(self) -> None:
        """The engine is complete: returns when all of it is noted; what is spawned from now on is not of it."""
        with contextlib.suppress(OSError):
            self._pipe.write(b"started\n")
            self._pipe.flush()
            self._answers.readline()

    def close(self, timeout_s: float = 10.0) -> None:
        """Kill what is left of the engine and wait until it is gone."""
        self._pipe.close()
        self._answers.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)


def _table() -> dict[int, tuple[int, int]]:
    """Parent and start time (clock ticks) of every process; zombies, being dead, are left out."""
    table = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name in parentheses may hold anything; fields are counted from behind it.
                fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
                if fields[0] != b"Z":
                    table[int(entry.name)] = (int(fields[1]), int(fields[19]))
    return table


def _is_spawned(pid: int) -> bool:
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return any(word in command for word in SPAWNED)
    return False


def _extend(family: dict[int, int], table: dict[int, tuple[int, int]]) -> None:
    """Add every descendant of the family, with its start time."""
    n_before = -1
    while len(family) != n_before:
        n_before = len(family)
        family |= {pid: start for pid, (parent, start) in table.items() if parent in family}


def _answer_owner() -> None:
    with contextlib.suppress(OSError):
        os.write(1, b"noted\n")


def _watch(owner: int) -> dict[int, int]:
    """The engine's processes, noted until the owner says that it has started; returns when the pipe closes."""
    family: dict[int, int] = {}
    is_started = False
    _answer_owner()
    while True:
        ready, _, _ = select.select([0], [], [], None if is_started else SCAN_S)
        if ready:
            if not os.read(0, 100):
                return family
            is_started = True
        table = _table()
        for pid in [pid for pid, (parent, _) in table.items() if parent == owner and _is_spawned(pid)]:
            family[pid] = table[pid][1]
        _extend(family, table)
        if ready:
            _answer_owner()


def _kill(family: dict[int, int]) -> None:
    n_quiet = 0
    while n_quiet < N_QUIET_SCANS:
        table = _table()
        _extend(family, table)
        # Same id and same start time: not another process that was given the id since.
        alive = [pid for pid, start in family.items() if pid in table and table[pid][1] == start]
        for pid in alive:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        n_quiet = 0 if alive else n_quiet + 1
        time.sleep(SCAN_S)


if __name__ == "__main__":
    _kill(_watch(int(sys.argv[1])))
