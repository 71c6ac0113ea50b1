"""Run one untrusted Python program: no network, no files but a read-only system, bounded time, memory and output.

Off unless PACED_CODE_SANDBOX names the tool that isolates: `bwrap` (bubblewrap) or `unshare` (util-linux, with user
namespaces). Each run is a fresh process in new user, network, mount, process and IPC namespaces; it sees Python, the
system's libraries and an empty folder in memory, and none of the environment. Limits on the number of processes do not
bind root: grade as another user.
"""

import ctypes
import functools
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .base import GraderMissingError

SETTING = "PACED_CODE_SANDBOX"
TOOLS = ("bwrap", "unshare")
CPU_S = 2
WALL_S = 4.0
MEMORY_BYTES = 512 << 20
OUTPUT_BYTES = 1 << 20
N_PROCESSES = 32
TOOL_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
FOLDER = "/tmp"  # noqa: S108 - a folder in memory, inside
PR_SET_PDEATHSIG = 1
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/lib32")
# Makes a root of its own on a tmpfs at $1, binds what follows up to "--" read-only, and gives up every capability.
ENTER = """
root=$1; shift
mount -t tmpfs -o size=1m,mode=755 tmpfs "$root"
while [ "$1" != "--" ]; do
  if [ -L "$1" ]; then ln -s "$(readlink "$1")" "$root$1"
  elif [ -d "$1" ]; then mkdir -p "$root$1"; mount --rbind "$1" "$root$1"; mount -o remount,bind,ro "$root$1"; fi
  shift
done
shift
mkdir -p "$root/tmp"
mount -o remount,ro "$root"
mount -t tmpfs -o size=16m tmpfs "$root/tmp"
exec chroot "$root" setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""
# The limits are set inside, since mount and setpriv are not to be bound by them.
START = """
import os, resource, sys
cpu_s, memory, output, n_processes = map(int, sys.argv[1:5])
for name, value in (("CPU", cpu_s), ("AS", memory), ("FSIZE", output), ("NPROC", n_processes), ("CORE", 0)):
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (value, value))
os.chdir("/tmp")
os.execve(sys.executable, [sys.executable, "-I", "-B", "-c", sys.argv[5]], {"PATH": "/usr/bin:/bin", "HOME": "/tmp"})
"""


@dataclass(frozen=True)
class Outcome:
    """How a program ended: `exit_code` is None where it ran out of wall time; `errors` is the end of its stderr."""

    exit_code: int | None
    output: str
    errors: str


def run(program: str, stdin: str = "") -> Outcome:
    """Run a program to its end, for at most CPU_S of processor and WALL_S of wall time.

    Raises GraderMissingError where the sandbox is off or does not work here.
    """
    tool = os.environ.get(SETTING, "").strip()
    if tool not in TOOLS:
        raise GraderMissingError(
            f"the code grader is off: it runs programs that a model wrote. To allow that, set {SETTING} to "
            f"{' or '.join(TOOLS)} where answers are graded" + (f" (it is {tool!r})" if tool else "")
        )
    _check(tool)
    return _run(tool, program, stdin)


@functools.cache
def _check(tool: str) -> None:
    """Raise GraderMissingError unless a program in the sandbox runs and sees no network."""
    if shutil.which(tool) is None:
        raise GraderMissingError(f"the code grader needs {tool}, which is not installed here ({SETTING}={tool})")
    outcome = _run(tool, "import socket; print([name for _, name in socket.if_nameindex()])", "")
    if outcome.output.strip() not in ("['lo']", "[]"):
        what = outcome.errors.strip() or f"the program saw the network interfaces {outcome.output.strip()}"
        raise GraderMissingError(f"the code grader's isolation by {tool} does not work here: {what[-300:]}")


def _run(tool: str, program: str, stdin: str) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="paced-code-") as folder:
        root = Path(folder) / "root"
        root.mkdir()
        command = [*_isolation(tool, str(root)), *_start(program)]
        with (Path(folder) / "out").open("w+b") as out, (Path(folder) / "err").open("w+b") as err:
            process = subprocess.Popen(  # noqa: S603  (what runs is isolated; that is the point)
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env={"PATH": TOOL_PATH},
                preexec_fn=_bound,  # noqa: PLW1509  (a grading process has one thread)
            )
            try:
                process.communicate(stdin.encode(), timeout=WALL_S)
                exit_code: int | None = process.returncode
            except subprocess.TimeoutExpired:
                exit_code = None
            finally:
                process.kill()
                process.wait()
            return Outcome(exit_code, _read(out), _read(err)[-2_000:])


def _start(program: str) -> list[str]:
    limits = (CPU_S, MEMORY_BYTES, OUTPUT_BYTES, N_PROCESSES)
    return [os.path.realpath(sys.executable), "-I", "-S", "-c", START, *map(str, limits), program]


def _isolation(tool: str, root: str) -> list[str]:
    folders = [*SYSTEM, *({os.path.realpath(sys.base_prefix)} - set(SYSTEM))]
    if tool == "bwrap":
        binds = [part for path in folders if Path(path).exists() for part in ("--ro-bind", path, path)]
        return ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", *binds, "--tmpfs", FOLDER, "--"]
    namespaces = ["--user", "--map-root-user", "--net", "--mount", "--pid", "--ipc", "--uts"]
    return ["unshare", *namespaces, "--fork", "--kill-child", "--", "/bin/sh", "-ec", ENTER, "sh", root, *folders, "--"]


def _bound() -> None:
    """In the new process: die with the grading process, and write no more than the bound."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_BYTES, OUTPUT_BYTES))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))  # the grading process's own bound is not for its tools


def _read(file: object) -> str:
    file.seek(0)  # type: ignore[attr-defined]
    content: bytes = file.read(OUTPUT_BYTES)  # type: ignore[attr-defined]
    return content.decode(errors="replace")
