"""`python -m benchmarks NAME [--small] [--json]`: one JSON object, last on standard output."""

import argparse
import importlib
import json
import signal
import sys
import time
from typing import Any

from benchmarks.machine import describe

NAMES = {
    "replay": "estimators on real answers of a model in training, by what they forecast",
    "rollout": "tokens/s of the rollout worker against plain vLLM",
    "draw": "durable weighted draws over HTTP, by pool size and while reports come in",
    "client": "what a trainer waits for its batches, and the bytes that travel for them",
    "dashboard": "server time of every page over a large log, while a worker reports",
    "processes": "several API processes on one PostgreSQL: observations missed, and how late they are seen",
    "frontier": "estimators on simulated students: error of the weights, reach, recall, rollouts needed",
    "learning": "what a small student learns by each way to draw and each schedule, at equal tokens",
    "arms": "hold-out pass rates of a real small model after each way to draw: uniform, hard filter, default",
    "snr": "gradient signal-to-noise by pass rate, and the Beta kernel that describes it",
    "import": "rows/s and memory of an import over HTTP, against polars reading the file",
    "loss": "memory and time of the chunked KL losses against dense autograd",
    "grading": "answers/s of the grader pool against math-verify in a plain loop",
}
MODULES = {"import": "imports"}  # a module cannot be called import
SEEDED = ("learning", "arms")  # where the number of seeds can be chosen


def main() -> None:
    """Run one benchmark, or all of them with small settings."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures what the README claims; both sides in one run.",
        epilog="; ".join(f"{name}: {what}" for name, what in NAMES.items()),
    )
    parser.add_argument("name", choices=[*NAMES, "all"], help="which benchmark; `all` runs each with small settings")
    parser.add_argument("--small", action="store_true", help="settings that take a few minutes")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--seeds", type=int, metavar="N", help=f"how many seeds, for {' and '.join(SEEDED)}")
    arguments = parser.parse_args()
    if arguments.seeds is not None and (arguments.name not in SEEDED or arguments.seeds < 1):
        parser.error(f"--seeds N, at least 1, belongs to {' and '.join(SEEDED)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what a benchmark started ends with it
    names = list(NAMES) if arguments.name == "all" else [arguments.name]
    is_small, chosen = arguments.small or arguments.name == "all", {}
    if arguments.seeds is not None:
        chosen["n_seeds"] = arguments.seeds
    reports = {name: _measured(name, small=is_small, **chosen) for name in names}
    if not arguments.json:
        for name, report in reports.items():
            _show(name, report)
        return
    single = reports[names[0]]
    print(json.dumps(reports if arguments.name == "all" else single))


def _measured(name: str, *, small: bool, **chosen: int) -> dict[str, Any]:
    print(f"benchmark {name}: {NAMES[name]}", file=sys.stderr, flush=True)
    started = time.monotonic()
    report = importlib.import_module(f"benchmarks.{MODULES.get(name, name)}").run(small, **chosen)
    return {"machine": describe(), **report, "duration_s": round(time.monotonic() - started, 1)}


def _show(name: str, report: dict[str, Any]) -> None:
    print(f"{name} ({report['duration_s']} s, {report['machine']['cpu']}, {report['machine']['n_cores']} cores)")
    for figure, value in report["figures"].items():
        print(f"  {figure:<28} {value}")


if __name__ == "__main__":
    main()
