"""The child process that grades: reads tasks from its socket, one after the other, until the parent is gone.

Started as `python -c "from worker.grading.child import main; main()" FD MEMORY_MB [NAME=MODULE:FUNCTION ...]`.
"""

import contextlib
import ctypes
import importlib
import os
import resource
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from .base import Grader
from .judge import GRADERS, grade, load_grader

PR_SET_PDEATHSIG = 1
MEGABYTE = 1 << 20
READY = "ready"


def main() -> None:
    """Grade until the parent closes the socket. A parent that is killed takes this process with it (Linux)."""
    parent = os.getppid()
    _die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the socket
    connection = Connection(int(sys.argv[1]))
    graders = GRADERS | dict(_override(argument) for argument in sys.argv[3:])
    with contextlib.suppress(ImportError):  # then the math grader says what is missing, task by task
        importlib.import_module("math_verify")
    n_bytes = int(sys.argv[2]) * MEGABYTE
    baseline = _address_space()
    _limit_memory(baseline + n_bytes)
    connection.send(READY)
    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
        while True:
            text, answer, name, policy = connection.recv()
            result = grade(text, answer, name, policy, graders)
            is_spent = _address_space() > baseline + n_bytes // 2  # memory that Python did not give back
            connection.send((result, is_spent))


def _override(argument: str) -> tuple[str, Grader]:
    name, _, path = argument.partition("=")
    return name, load_grader(path)


def _die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the starting thread ends: a formula that never returns reads no end of file."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the request
            os._exit(0)


def _limit_memory(n_bytes: int) -> None:
    """Bound the address space; where the platform has no such bound, the deadline is the only one."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = n_bytes if hard == resource.RLIM_INFINITY else min(n_bytes, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int:
    """Return the size of this process's address space in bytes, or 0 where /proc does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0
