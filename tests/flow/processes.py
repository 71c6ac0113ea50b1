"""The parts of the system as real processes, to be killed and started again."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Part:
    """One `paced` command with its log."""

    def __init__(self, name: str, log: Path, arguments: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.n_starts = 0
        self._log = log
        self._arguments = arguments
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.n_starts += 1
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "paced", *self._arguments]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    @property
    def code(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def wait(self, timeout_s: float) -> int:
        assert self._process is not None
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end in {timeout_s} s:\n{self.tail()}") from None

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
        return self.wait(timeout_s)

    def tail(self, n_chars: int = 3000) -> str:
        return self._log.read_text(errors="replace")[-n_chars:]


class Parts:
    """Parts of one system; whatever still runs at the end of the block is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: list[Part] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part in self._parts:
            if part.n_starts and part.code is None:
                part.kill()

    def part(self, name: str, *arguments: str, **environment: str) -> Part:
        made = Part(name, self._folder / f"{name}.log", list(arguments), environment)
        self._parts.append(made)
        made.start()
        return made


def wait_for(condition: object, what: str, timeout_s: float = 60.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.05)
