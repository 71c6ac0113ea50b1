"""The command `paced demo`."""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command()(demo)


def demo(
    data: Annotated[Path, typer.Option(help="Folder of everything the demo makes; a rerun continues in it")] = Path(
        "demo-data"
    ),
    problems: Annotated[
        Path | None, typer.Option(help="Your own JSONL to add to the problems (fields `question` and `answer`)")
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the service, if it is free")] = 8420,
    n_per_kind: Annotated[int, typer.Option(help="Generated problems of each of seven kinds", min=4)] = 45,
    forward_steps: Annotated[int, typer.Option(help="Optimiser steps of forward KL", min=1)] = 60,
    reverse_steps: Annotated[int, typer.Option(help="Optimiser steps of reverse KL", min=1)] = 40,
    batch_size: Annotated[int, typer.Option(help="Problems a step", min=1)] = 16,
    learning_rate: Annotated[float, typer.Option(help="Of the forward stage")] = 5e-5,
    reverse_learning_rate: Annotated[float, typer.Option(help="Of the reverse stage")] = 2e-5,
    leave: Annotated[bool, typer.Option("--exit", help="End when done instead of leaving the service open")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object, last")] = False,
) -> None:
    """The whole loop on a real small model: measure, distil with forward then reverse KL, measure again.

    Everything runs on this machine: the service on SQLite, rollouts of SmolLM2-135M-Instruct with vLLM, a frozen
    copy of the student that sees the answers as teacher. About 25 minutes on 2 CPU cores. Ctrl-C stops it; the
    same command goes on where it stopped.
    """
    from demo.flow import OWN_PROBLEMS, Plan, dashboard_of, keep_minutes, minutes_before, run_demo
    from demo.processes import ChildFailed, Children
    from demo.report import show

    plan = Plan(
        data=data,
        problems=problems or OWN_PROBLEMS,
        port=port,
        n_per_kind=n_per_kind,
        forward_steps=forward_steps,
        reverse_steps=reverse_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        reverse_learning_rate=reverse_learning_rate,
    )
    notes, started, is_done = Console(stderr=True), time.monotonic(), False
    signal.signal(signal.SIGTERM, _as_interrupt)
    data.mkdir(parents=True, exist_ok=True)
    try:
        with Children(data / "logs") as children:
            client, report = run_demo(plan, children, lambda line: notes.print(f"· {line}", highlight=False))
            is_done = True
            if not as_json:
                show(report, Console())
            if leave:
                children.stop("rollout")
            typer.echo(json.dumps(report.as_dict()) if as_json else "")
            if not leave:
                notes.print(
                    f"The service stays open on {client.url}; its key is in {data}/service/admin.key. Ctrl-C ends it.\n"
                    f"Its dashboard: {dashboard_of(client)} (works once)",
                    highlight=False,
                    soft_wrap=True,
                )
                sys.stdout.flush()
                signal.pause()
    except KeyboardInterrupt:
        if not is_done:
            keep_minutes(plan, minutes_before(plan) + (time.monotonic() - started) / 60)
        notes.print("stopped; `make demo` (or `paced demo`) goes on from here", highlight=False)
        raise typer.Exit(130) from None
    except ChildFailed as error:
        notes.print(f"error: {error}", markup=False, highlight=False)
        raise typer.Exit(1) from error


def _as_interrupt(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt
