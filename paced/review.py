"""Commands on what someone should look at: flagged problems, decisions, disputes."""

import getpass
import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from paced import wire
from paced.client import Client
from paced.options import AsJson, Key, Url

MAX_SHOWN = 80


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command()(flagged)
    cli.command()(decide)
    cli.command()(disputes)


def flagged(
    problem_set: Annotated[str, typer.Argument(help="Problem set")],
    state: Annotated[wire.ProblemState, typer.Option(help="Which problems")] = wire.ProblemState.FLAGGED,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List problems that wait for a decision: they are never leased, drawn or held out. `paced decide` decides."""
    with Client(url, key) as client:
        found = list(client.problems(problem_set, state=state.value, limit=1000))
    _show(found, ("ordinal", "flag", "flag_detail", "answer", "prompt"), as_json)


def decide(
    problem_set: Annotated[str, typer.Argument(help="Problem set")],
    ordinals: Annotated[list[int], typer.Argument(help="Problems, by their place in the set")],
    state: Annotated[
        wire.ProblemState, typer.Option(help="ready serves them, excluded leaves them out, flagged sets them aside")
    ],
    answer: Annotated[str | None, typer.Option(help="Corrected answer, while none was judged against the old")] = None,
    note: Annotated[str, typer.Option(help="Why")] = "",
    by: Annotated[str, typer.Option(help="Who decides")] = getpass.getuser(),
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Serve, set aside or leave out problems; who, when and why is kept."""
    body = wire.ProblemDecision(state=state, answer=answer, note=note, decided_by=by)
    with Client(url, key) as client:
        found = [client.decide(problem_set, ordinal, body) for ordinal in ordinals]
    _show(found, ("ordinal", "state", "answer", "prompt"), as_json)


def disputes(
    measurement: Annotated[str, typer.Argument(help="Measurement id, such as mea_1")],
    kind: Annotated[
        wire.DisputeKind, typer.Option(help="Two graders differ (after `paced regrade`), or the reference is there")
    ] = wire.DisputeKind.REFERENCE_IN_ANSWER,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List stored answers whose verdict is in doubt: graders differ, or a failed answer holds the reference."""
    with Client(url, key) as client:
        found = list(client.disputes(measurement, kind))
    _show(found, ("ordinal", "position", "answer", "extracted", "verdict", "other_verdict", "text"), as_json)


def _show(items: Iterable[BaseModel], columns: tuple[str, ...], as_json: bool) -> None:
    rows: list[dict[str, Any]] = [item.model_dump(mode="json") for item in items]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(Text(_short(row[column])) for column in columns))  # a prompt may hold [/b]: no markup
    Console().print(table)
    typer.echo(f"{len(rows)} in all")


def _short(value: Any) -> str:
    if isinstance(value, list):  # a chat: what it asks last
        value = value[-1]["content"]
    text = " ".join(str("" if value is None else value).split())
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
