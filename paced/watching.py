"""Commands that watch: alarms, workers, the hold-out."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from paced import wire
from paced.client import Client
from paced.options import AsJson, Key, Url

MeasurementId = Annotated[str, typer.Argument(help="Measurement id, such as mea_1")]


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command()(alarms)
    cli.command()(workers)
    cli.command()(holdout)


def alarms(
    measurement: Annotated[str | None, typer.Option(help="Only this measurement's")] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List what needs a person now, with the command that helps. Exit code 1 when any of it is serious."""
    with Client(url, key) as client:
        found = client.alarms(measurement)
    if as_json:
        typer.echo(json.dumps([alarm.model_dump(mode="json") for alarm in found]))
    elif not found:
        typer.echo("no alarms")
    else:
        table = Table("", "alarm", "what", "command", box=None)
        for alarm in found:
            mark = "[red]serious[/]" if alarm.severity == wire.Severity.SERIOUS else "[yellow]warning[/]"
            table.add_row(mark, alarm.name.value, Text(alarm.sentence), Text(alarm.command))
        Console().print(table)
    if any(alarm.severity == wire.Severity.SERIOUS for alarm in found):
        raise typer.Exit(1)


def workers(measurement: MeasurementId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Say who measures, how fast, what waits, and which graders and answers are slow."""
    with Client(url, key) as client:
        found = client.workers(measurement)
    if as_json:
        typer.echo(found.model_dump_json())
        return
    table = Table("worker", "live", "late", "lost", "groups 5 min", "tokens/s", "groups 1 h", "last seen", box=None)
    for worker in found.workers:
        n = (worker.n_live, worker.n_late, worker.n_lost, worker.n_groups_5m)
        seen = "-" if worker.last_seen_at is None else f"{worker.last_seen_at:%Y-%m-%d %H:%M:%S} UTC"
        table.add_row(
            Text(worker.worker), *map(str, n), f"{worker.tokens_per_s:.0f}", str(worker.n_groups_1h), seen
        )  # fmt: skip
    Console().print(table)
    verdicts = ", ".join(f"{n} {verdict}" for verdict, n in found.verdicts.items()) or "no answers"
    typer.echo(f"last hour: {verdicts}")
    typer.echo(_waiting(found.queue))
    for grader in found.graders:
        typer.echo(f"grader {grader.grader}: mean {grader.mean_s:.3f} s, at most {grader.max_s:.3f} s")


def holdout(measurement: MeasurementId, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show the hold-out pass rate at each measured checkpoint: the progress of the student."""
    with Client(url, key) as client:
        found = client.holdout(measurement)
    if as_json:
        typer.echo(json.dumps([point.model_dump(mode="json") for point in found]))
        return
    table = Table("checkpoint", "pass rate", "standard error", "problems", "answers", box=None)
    for point in found:
        se = "-" if point.se is None else f"{point.se:.3f}"
        n = (str(point.n_problems), str(point.n_rollouts))
        table.add_row(str(point.checkpoint_index), f"{point.pass_rate:.3f}", se, *n)
    Console().print(table)


def _waiting(queue: wire.WorkQueue) -> str:
    if queue.checkpoint_index is None:
        return "nothing waits: the student has no checkpoint"
    if not queue.is_wanted:
        return f"nothing waits at checkpoint {queue.checkpoint_index}"
    oldest = queue.oldest_measured_at
    age = "never measured" if oldest is None else f"measured last at {oldest:%Y-%m-%d %H:%M} UTC"
    return f"problems wait at checkpoint {queue.checkpoint_index}, the oldest of them {age}"
