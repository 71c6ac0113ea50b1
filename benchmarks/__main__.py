"""`python -m benchmarks NAME [--small] [--json]`: one JSON object, last on standard output."""

import argparse
import importlib
import json
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
    "snr": "gradient signal-to-noise by pass rate, and the Beta kernel that describes it",
    "import": "rows/s and memory of an import over HTTP, against polars reading the file",
    "loss": "memory and time of the chunked KL losses against dense autograd",
    "grading": "answers/s of the grader pool against math-verify in a plain loop",
}
MODULES = {"import": "imports"}  # a module cannot be called import


def main() -> None:
    """Run one benchmark, or all of them with small settings."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures what the README claims; both sides in one run.",
        epilog="; ".join(f"{name}: {what}" for name, what in NAMES.items()),
    )
    parser.add_argument("name", choices=[*NAMES, "all"], help="which benchmark; `all` runs each with small settings")
    parser.add_argument("--small", action="store_true", help="settings that take a minute or two")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    arguments = parser.parse_args()
    names = list(NAMES) if arguments.name == "all" else [arguments.name]
    reports = {name: _measured(name, small=arguments.small or arguments.name == "all") for name in names}
    if not arguments.json:
        for name, report in reports.items():
            _show(name, report)
        return
    single = reports[names[0]]
    print(json.dumps(reports if arguments.name == "all" else single))


def _measured(name: str, *, small: bool) -> dict[str, Any]:
    print(f"benchmark {name}: {NAMES[name]}", file=sys.stderr, flush=True)
    started = time.monotonic()
    report = importlib.import_module(f"benchmarks.{MODULES.get(name, name)}").run(small)
    return {"machine": describe(), **report, "duration_s": round(time.monotonic() - started, 1)}


def _show(name: str, report: dict[str, Any]) -> None:
    print(f"{name} ({report['duration_s']} s, {report['machine']['cpu']}, {report['machine']['n_cores']} cores)")
    for figure, value in report["figures"].items():
        print(f"  {figure:<28} {value}")


if __name__ == "__main__":
    main()
