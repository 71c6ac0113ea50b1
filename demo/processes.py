"""The demo's child processes: started in their own sessions, logged to files, stopped with the demo."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Self

PR_SET_PDEATHSIG = 1
STOP_S = 30.0


class ChildFailed(Exception):
    """A child ended with an error; the message names its log."""


class Children:
    """Starts `paced` commands and stops them all at the end of the block, newest first."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[str]] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in reversed(list(self._running)):
            self.stop(name)

    def start(self, name: str, *arguments: str, environment: dict[str, str] | None = None) -> "subprocess.Popen[str]":
        """Run `paced ARGUMENTS`; standard error goes to NAME.log, standard output can be read."""
        with self._log(name).open("a") as log:
            child = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "paced", *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - one thread
            )
        self._running[name] = child
        return child

    def check(self, name: str) -> None:
        """Raise ChildFailed if a child has ended badly."""
        child = self._running[name]
        if child.poll() not in (None, 0):
            raise ChildFailed(
                f"`paced {name}` ended with code {child.returncode}; see {self._log(name)}{self._tail(name)}"
            )

    def is_running(self, name: str) -> bool:
        """True while a child runs."""
        return name in self._running and self._running[name].poll() is None

    def stop(self, name: str) -> None:
        """End a child politely, then by force."""
        child = self._running.pop(name)
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if child.stdout is not None:
            child.stdout.close()

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _tail(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").splitlines()[-5:]
        return "".join(f"\n  {line}" for line in lines)


def first_json_line(output: IO[str] | None) -> dict[str, str]:
    """The first line of a child's standard output, as JSON; empty if it ended without one."""
    line = output.readline() if output is not None else ""
    return dict(json.loads(line)) if line.strip() else {}


def free_port(wanted: int) -> int:
    """The port asked for if nothing listens there, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ChildFailed("no free port on 127.0.0.1")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
