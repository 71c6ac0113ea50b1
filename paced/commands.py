"""Commands that need only the client: export, doctor, dashboard, keys."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from paced import wire
from paced.client import Client
from paced.doctor import examine
from paced.export import Format, write_rows
from paced.options import AsJson, Key, Url
from paced.selecting import Selection, listed_by, rows_of

console = Console(stderr=True)


def register(cli: typer.Typer) -> None:
    """Add the commands."""
    cli.command()(export)
    cli.command()(doctor)
    cli.command()(dashboard)
    keys = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
    keys.command("create")(create_key)
    keys.command("list")(list_keys)
    keys.command("revoke")(revoke_key)
    cli.add_typer(keys, name="keys")


def answer(value: Any, as_json: bool) -> None:
    """Print a result: JSON on standard output, or text."""
    if as_json:
        typer.echo(json.dumps(value, default=str))
    else:
        Console().print(value)


def export(
    measurement: Annotated[
        str | None, typer.Argument(help="Measurement id, such as mea_1; may be left out where there is only one")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File or folder to write; STUDENT-SET.FORMAT if left out")
    ] = None,
    file_format: Annotated[Format | None, typer.Option("--format", help="By the file's ending if left out")] = None,
    query: Annotated[str, typer.Option(help="Only problems that it selects, as in `paced problems`")] = "",
    curriculum: Annotated[str | None, typer.Option(help="With the weights of this curriculum's draws")] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Only so many problems, the heaviest first")] = None,
    band: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="Only pass rates from LOW to HIGH")
    ] = None,
    alpha: Annotated[float, typer.Option(min=0, max=64, help="Exponent of p in the weight")] = 1.0,
    beta: Annotated[float, typer.Option(min=0, max=64, help="Exponent of 1 - p in the weight")] = 1.0,
    with_holdout: Annotated[
        bool, typer.Option("--with-holdout", help="With --top or --band: held-out problems too")
    ] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Write the problems of a measurement with their pass rates and weights, for use without the service.

    JSONL, CSV, Parquet, or a `dataset` folder for Hugging Face `datasets`. --top and --band leave out what training
    must not see: problems held out, flagged, or not measured. `weight` is p^alpha (1-p)^beta, 1 at its peak; with
    --curriculum it is E[w] as its draws take it. --query selects in its own order, before --top and --band do.
    """
    chosen = Selection(band, top, alpha, beta, with_holdout)
    with Client(url, key) as client:
        found = listed_by(client, measurement, curriculum)
        place = output or _place(found, file_format or Format.JSONL)
        n_rows = write_rows(place, file_format, chosen.chosen(rows_of(client, found, query)))
    answer({"file": str(place), "n_rows": n_rows} if as_json else f"{n_rows} rows written to {place}", as_json)


def _place(listed: wire.Measurement | wire.Curriculum, file_format: Format) -> Path:
    ending = "" if file_format == Format.DATASET else f".{file_format}"
    return Path(f"{listed.student}-{listed.problem_set}{ending}")


def doctor(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Say what is wrong with this installation and its service, and how to mend it. Exit code 1 on a fault."""
    findings = examine(url, key)
    if as_json:
        typer.echo(json.dumps([finding.as_dict() for finding in findings]))
    else:
        table = Table("", "check", "found", "what to do", box=None)
        for finding in findings:
            mark = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "fault": "[red]fault[/]"}[finding.level]
            table.add_row(mark, finding.check, finding.found, finding.advice)
        Console().print(table)
    if any(finding.level == "fault" for finding in findings):
        raise typer.Exit(1)


def dashboard(
    is_opened: Annotated[bool, typer.Option("--open", help="Open it in the browser of this machine")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Print a link to the dashboard that signs a browser in once, within an hour, with what the key may do."""
    with Client(url, key) as client:
        made = client.create_sign_in_link()
        address = f"{client.url}{made.path}"
    typer.echo(json.dumps({"url": address, "expires_at": made.expires_at.isoformat()}) if as_json else address)
    if is_opened:
        typer.launch(address)


def create_key(
    name: Annotated[str, typer.Argument(help="What or who uses the key")],
    scope: Annotated[list[wire.Scope], typer.Option(help="Repeat for several")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make an API key; its secret is shown this once."""
    with Client(url, key) as client:
        made = client.create_key(wire.KeyCreate(name=name, scopes=scope))
    typer.echo(made.model_dump_json() if as_json else made.secret)
    if not as_json and sys.stdout.isatty():
        console.print(f"key {made.key_id}; keep the secret, it is not shown again")


def list_keys(url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """List the keys in use."""
    with Client(url, key) as client:
        keys = list(client.keys())
    if as_json:
        typer.echo(json.dumps([item.model_dump(mode="json") for item in keys]))
        return
    table = Table("key", "name", "scopes", "made", box=None)
    for item in keys:
        table.add_row(item.key_id, item.name, " ".join(item.scopes), f"{item.created_at:%Y-%m-%d %H:%M}")
    Console().print(table)


def revoke_key(
    key_id: Annotated[str, typer.Argument(help="Key id, such as key_6nTz")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make a key useless."""
    with Client(url, key) as client:
        client.revoke_key(key_id)
    answer({"revoked": key_id} if as_json else f"{key_id} revoked", as_json)
