"""Commands on what someone should look at: flagged problems, decisions, disputes, and why a batch is what it is."""

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
    cli.command()(explain)


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
    by: Annotated[str, typer.Option(help="Who decides", show_default="your user name")] = getpass.getuser(),
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


def explain(
    batch: Annotated[str, typer.Argument(help="Batch id, such as bat_9cVm")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Say why each problem of a batch was drawn: what was seen of it, its weight and chance, and what others do.

    `uniform` and `hard filter` are the chances that a batch of this size, drawn uniformly from all that were eligible
    or from those with 0.2 < p < 0.8, holds the problem.
    """
    with Client(url, key) as client:
        found = client.explain(batch)
    if as_json:
        typer.echo(found.model_dump_json())
        return
    rule = f"{found.estimator.name}, w = p^{found.kernel.alpha:g} (1-p)^{found.kernel.beta:g}, gamma {found.gamma:g}"
    table = Table(title=f"{batch}: {rule}, {found.mode.value}, version {found.curriculum_version}")
    for name in ("ordinal", "p", "90 %", "weight", "chance", "loss weight", "uniform", "hard filter", "observed"):
        table.add_column(name, justify="left" if name == "observed" else "right")
    for item in found.items:
        seen = ", ".join(f"{o.n_passed}/{o.n_counted} at {o.checkpoint_index}" for o in item.observations)
        chance = "-" if item.draw_probability is None else f"{item.draw_probability:.3g}"
        low, high = item.interval
        table.add_row(
            str(item.ordinal), f"{item.pass_rate:.3f}", f"{low:.2f}-{high:.2f}", f"{item.weight:.4f}", chance,
            f"{item.loss_weight:.3f}", f"{item.uniform_inclusion:.3f}", f"{item.hard_filter_inclusion:.3f}",
            seen or "never",
        )  # fmt: skip
    Console().print(table)
    n_out = sum(item.hard_filter_inclusion == 0 for item in found.items)
    typer.echo(f"{len(found.items)} of {found.n_eligible} eligible problems; the hard filter would never draw {n_out}")


def _show(items: Iterable[BaseModel], columns: tuple[str, ...], as_json: bool) -> None:
    rows: list[dict[str, Any]] = [item.model_dump(mode="json") for item in items]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(Text(short(row[column])) for column in columns))  # a prompt may hold [/b]: no markup
    Console().print(table)
    typer.echo(f"{len(rows)} in all")


def short(value: Any) -> str:
    """A prompt or answer on one line, cut where it is long."""
    if isinstance(value, list):  # a chat: what it asks last
        value = value[-1]["content"]
    text = " ".join(str("" if value is None else value).split())
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
