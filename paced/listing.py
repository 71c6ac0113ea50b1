"""`paced problems`: the problems that a query selects, in a table, as JSON or as CSV."""

import itertools
import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from paced import wire
from paced.client import Client
from paced.export import write_csv
from paced.options import AsJson, Key, Url
from paced.review import short
from paced.selecting import Row, listed_by, named, rows_of

N_SHOWN = 50


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command()(problems)


def problems(
    query: Annotated[
        str, typer.Argument(help="Such as 'tag:algebra p<0.4 attempts>8 verdict:timeout is:training sort:-p'")
    ] = "",
    measurement: Annotated[
        str | None, typer.Option(help="Measurement id, such as mea_1; may be left out where there is only one")
    ] = None,
    curriculum: Annotated[
        str | None, typer.Option(help="Curriculum id instead: its weights can be shown, filtered and sorted by")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many; 50 in a table and all with --json or --csv if left out")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the problems that a query selects, with what is known of them.

    Terms: text:"a b" (or just words), tag:, source:, is:, verdict:, flag: take words, several by comma; p, newest,
    weight, attempts, groups, passed, failed, truncated, timeout, served, checkpoint and ordinal take <, <=, >, >=, = or
    :LOW..HIGH. A dash before a term turns it round. sort:FIELD, or sort:-FIELD for the largest first.
    """
    shown = limit or (None if as_json or as_csv else N_SHOWN)
    with Client(url, key) as client:
        listed = listed_by(client, measurement, curriculum)
        rows = itertools.islice(rows_of(client, listed, query), shown)
        if as_csv:
            write_csv(sys.stdout, rows)
        elif as_json:
            typer.echo(json.dumps(list(rows)))
        else:
            n_matches = client.estimate_page(**named(listed), query=query, limit=1).n_matches
            _show(list(rows), n_matches, is_weighed=isinstance(listed, wire.Curriculum))


def _show(rows: list[Row], n_matches: int, *, is_weighed: bool) -> None:
    table = Table(box=None)
    for name in ("ordinal", "p", "90 %", "attempts", *["weight"] * is_weighed, "served"):
        table.add_column(name, justify="right")
    for name in ("tags", "prompt"):
        table.add_column(name, overflow="fold")
    for row in rows:
        low, high = row["interval"] or (None, None)
        table.add_row(
            str(row["ordinal"]),
            "-" if row["pass_rate"] is None else f"{row['pass_rate']:.3f}",
            "-" if low is None else f"{low:.2f}-{high:.2f}",
            str(row["n_counted"]),
            *([f"{row['weight']:.4f}"] if is_weighed else []),
            str(row["n_served"]),
            Text(", ".join(row["tags"])),
            Text(short(row["prompt"])),  # a prompt may hold [/b]: no markup
        )
    Console().print(table)
    typer.echo(f"{len(rows)} of {n_matches} that match")
