"""The parent's handle on one grading process: start it, hand it a task, kill it.

A plain subprocess rather than multiprocessing's: that imports the caller's main module again in every child, which
for a worker is torch and vLLM, and for a script without a main guard is the script once more.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection

from paced.wire.grading import Grader, GradingPolicy, Verdict

from .base import Grade
from .child import READY

CODE = "from worker.grading.child import main; main()"
START_S = 60.0  # a cold import on a busy machine takes seconds


class LostProcessError(RuntimeError):
    """The process died without an answer; the task may or may not have been the cause."""


class GradingProcess:
    """One running child; used by one thread, which must outlive it (the child dies with the thread)."""

    def __init__(self, memory_mb: int, graders: Mapping[str, str]) -> None:
        """Start the child; it is not ready until `wait_ready` returns."""
        self.n_tasks = 0
        # of its own, since a process that is killed leaves behind what it wrote
        self._folder = tempfile.TemporaryDirectory(prefix="paced-grading-", ignore_cleanup_errors=True)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            arguments = [str(theirs.fileno()), str(memory_mb), *(f"{name}={path}" for name, path in graders.items())]
            self._process = subprocess.Popen(  # noqa: S603  (our own code, no shell)
                [sys.executable, "-P", "-c", CODE, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ
                | {
                    "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
                    "TMPDIR": self._folder.name,
                },
                pass_fds=[theirs.fileno()],
            )
            self._connection = Connection(ours.detach())

    def wait_ready(self) -> None:
        """Return when the child has imported the graders. Raises LostProcessError where it dies or takes START_S."""
        try:
            is_ready = self._connection.poll(START_S) and self._connection.recv() == READY
        except (EOFError, OSError):
            is_ready = False
        if not is_ready:
            self.kill()
            raise LostProcessError(f"a grading process did not start: {self.cause}; its reason is on standard error")

    def ask(
        self, text: str, answer: str, grader: Grader, policy: GradingPolicy, deadline_s: float
    ) -> tuple[Grade, bool]:
        """Return the grade and whether the process can take another task; its clock starts now.

        Past the deadline the process is killed and the verdict is timeout. Raises LostProcessError where it died.
        """
        self.n_tasks += 1
        start = time.perf_counter()
        try:
            self._connection.send((text, answer, grader, policy))
            if self._connection.poll(deadline_s):
                grade, is_spent = self._connection.recv()
                return grade, not is_spent
        except (EOFError, OSError) as error:
            self.kill()
            raise LostProcessError(f"the grading process died: {self.cause}") from error
        self.kill()
        detail = f"killed after {deadline_s:g} s"
        return Grade(Verdict.TIMEOUT, None, time.perf_counter() - start, detail), False

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def cause(self) -> str:
        """How the process ended, in words."""
        code = self._process.returncode
        return "still running" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}"

    def interrupt(self) -> None:
        """Kill the child from another thread; the owning thread then sees end of file and calls `kill`."""
        self._process.kill()

    def kill(self) -> None:
        """End the child with SIGKILL, reap it, close the socket and remove its files; safe to call again."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._folder.cleanup()
