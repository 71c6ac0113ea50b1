"""`python -m benchmarks NAME [--small] [--json]`: one JSON object, last on standard output."""

import argparse
import importlib
import json
import signal
import sys
import time
import traceback
from typing import Any, TextIO

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
    if arguments.name == "all":
        reports = {name: _tried(name) for name in NAMES}
        print(json.dumps(reports))
        sys.exit(any("failed" in report for report in reports.values()))
    chosen = {} if arguments.seeds is None else {"n_seeds": arguments.seeds}
    report = _measured(arguments.name, small=arguments.small, **chosen)
    if arguments.json:
        print(json.dumps(report))
    else:
        _show(arguments.name, report, sys.stdout)


def _measured(name: str, *, small: bool, **chosen: int) -> dict[str, Any]:
    print(f"benchmark {name}: {NAMES[name]}", file=sys.stderr, flush=True)
    started = time.monotonic()
    report = importlib.import_module(f"benchmarks.{MODULES.get(name, name)}").run(small, **chosen)
    return {"machine": describe(), **report, "duration_s": round(time.monotonic() - started, 1)}


def _tried(name: str) -> dict[str, Any]:
    """A report with small settings, or why there is none: the others are worth having all the same."""
    try:
        report = _measured(name, small=True)
    except Exception as error:
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"}
    _show(name, report, sys.stderr)
    return report


def _show(name: str, report: dict[str, Any], file: TextIO) -> None:
    machine = report["machine"]
    print(f"{name} ({report['duration_s']} s, {machine['cpu']}, {machine['n_cores']} cores)", file=file, flush=True)
    for figure, value in report["figures"].items():
        print(f"  {figure:<28} {value}", file=file, flush=True)


if __name__ == "__main__":
    main()
