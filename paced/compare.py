"""The command `paced compare`: runs by arm, with intervals over seeds, from what the service knows of them."""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from paced import wire
from paced.client import Client
from paced.commands import answer
from paced.compared import FIGURES, Point, Seen, table
from paced.errors import PacedError
from paced.options import AsJson, Key, Url
from paced.wholes import measured_whole

HOLDOUT = "pass_rate"
BASELINE = "uniform"
By = Literal["step", "tokens"]


def register(cli: typer.Typer) -> None:
    """Add the command."""
    cli.command()(compare)


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN...", help="Ids or names of runs or arms; all runs of arms if none"),
    ] = None,
    by: Annotated[By, typer.Option(help="What curves are read against")] = "tokens",
    metric: Annotated[
        str, typer.Option(help="Of the curves: pass_rate (of the hold-out), or a metric of the steps, such as loss")
    ] = HOLDOUT,
    baseline: Annotated[str, typer.Option(help="Arm that the others are compared to, seed by seed")] = BASELINE,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Table runs by arm: hold-out pass rates before and after, tokens, minutes, KL, with 95 % intervals over seeds.

    Runs of `paced arm` know their arm and seed; any other run is an arm of its own, by its name.
    """
    with Client(url, key) as client:
        seen = [see(client, run, metric) for run in chosen(client, runs or [])]
    try:
        rows = table(seen, baseline, by)
    except ValueError as error:
        raise PacedError(str(error)) from error
    if as_json:
        answer(
            {"by": by, "metric": metric, "baseline": baseline, "arms": rows, "runs": [asdict(s) for s in seen]}, True
        )
        return
    console = Console()
    console.print(_figures(rows, baseline))
    for trial in dict.fromkeys(row["trial"] for row in rows):
        of_trial = [row for row in rows if row["trial"] == trial and row["curve"]]
        if of_trial:
            console.print(_curves(of_trial, by, metric))
    behind = [run.name for run in seen if run.measured_step < run.n_steps]
    if behind:
        console.print(f"not measured to their ends yet: {', '.join(behind)}", highlight=False)


def chosen(client: Client, names: Sequence[str]) -> list[wire.Run]:
    """The runs of these ids, names or arms, or all that belong to an arm. Raises PacedError for a name of nothing."""
    found = list(client.runs())
    if not names:
        found = [run for run in found if run.config.get("arm")]
        if not found:
            raise PacedError("no run belongs to an arm yet: `paced arm` makes one; others are compared by name or id")
        return found
    labels = {run.run_id: {run.run_id, run.name, arm_of(run)} for run in found}
    unknown = [name for name in names if not any(name in of_run for of_run in labels.values())]
    if unknown:
        raise PacedError(f"there is no run or arm {', '.join(unknown)}; GET /v1/runs lists the runs")
    return [run for run in found if labels[run.run_id] & set(names)]


def arm_of(run: wire.Run) -> str:
    """The arm of a run, its name where it has none."""
    return str(run.config.get("arm") or run.name)


def trial_of(run: wire.Run, curriculum: wire.Curriculum) -> str:
    """What must be alike in runs that are compared: the model at the start, the profile, the schedule's length.

    Empty for a run that is no arm's: whoever names it knows what it is.
    """
    if not run.config.get("arm"):
        return ""
    steps = [plan.steps for plan in curriculum.schedule]
    total = "open" if None in steps else f"{sum(filter(None, steps))} steps"
    return f"{str(run.config.get('student', '')).rpartition('/')[2]}, {curriculum.profile_id}, {total}"


def see(client: Client, run: wire.Run, metric: str) -> Seen:
    """What the service knows of a run."""
    curriculum = client.curriculum(run.curriculum_id)
    steps = list(client.metrics(run.run_id))
    tokens = list(itertools.accumulate(point.values.get("n_tokens", 0.0) for point in steps))
    places = [point.step for point in steps]

    def after(n_steps: int, value: float) -> Point:
        n_done = bisect.bisect_left(places, n_steps)
        return Point(n_steps, tokens[n_done - 1] if n_done else 0.0, value)

    measured = _holdout(client, curriculum, run)
    kls = [point.values["kl_per_token"] for point in steps if "kl_per_token" in point.values]
    last = kls[-max(1, len(kls) // 10) :]
    values = [(point.step + 1, point.values[metric]) for point in steps if metric in point.values]
    curve = measured if metric == HOLDOUT else values
    seed = run.config.get("seed")
    return Seen(
        run_id=run.run_id,
        name=run.name,
        trial=trial_of(run, curriculum),
        problem_set=curriculum.problem_set,
        arm=arm_of(run),
        seed=seed if isinstance(seed, int) else None,
        state=run.state,
        n_steps=len(steps),
        measured_step=measured[-1][0] if measured else 0,
        before=next((rate for step, rate in measured if step == 0), None),
        after=measured[-1][1] if measured and measured[-1][0] > 0 else None,
        tokens=tokens[-1] if tokens else 0.0,
        minutes=sum(point.values.get("duration_s", 0.0) for point in steps) / 60,
        kl=sum(last) / len(last) if last else None,
        curve=tuple(after(step, value) for step, value in curve),
    )


def _holdout(client: Client, curriculum: wire.Curriculum, run: wire.Run) -> list[tuple[int, float]]:
    """(steps done, hold-out pass rate) of the checkpoint that a run began with and of its own, where measured.

    A checkpoint that a newer one overtook while it was measured is left out: its problems are a part of the others'.
    """
    points = measured_whole(client.holdout(curriculum.measurement_id))
    rates = {point.checkpoint_index: point.pass_rate for point in points}
    made = [one for one in client.checkpoints(curriculum.student) if one.run_id == run.run_id]
    steps = {one.index: one.step or 0 for one in made}
    if made and made[0].parent_index is not None:
        steps[made[0].parent_index] = 0
    return [(step, rates[index]) for index, step in sorted(steps.items()) if index in rates]


def _figures(rows: Sequence[dict[str, Any]], baseline: str) -> Table:
    titles = {"over_baseline": f"after, over {baseline}", "kl": "divergence at the end, nats/token"}
    heads = ["trial", "arm"] if len({row["trial"] for row in rows}) > 1 else ["arm"]
    made = Table(*heads, "runs", *(titles.get(name, name) for name in FIGURES))
    for row in rows:
        made.add_row(*(row[head] for head in heads), str(row["n_runs"]), *(_cell(row[name], name) for name in FIGURES))
    return made


def _curves(rows: Sequence[dict[str, Any]], by: str, metric: str) -> Table:
    grid = rows[0]["curve"]
    made = Table(f"{metric} by {by}", *(f"{point[by]:,.0f}" for point in grid))
    for row in rows:
        made.add_row(row["arm"], *(_cell(point["value"], metric) for point in row["curve"]))
    return made


def _cell(found: list[float | None] | None, name: str) -> str:
    """A mean and the half width of its interval, as text."""
    if found is None or found[0] is None:
        return "–"
    digits = {"tokens": 0, "minutes": 1}.get(name, 3)
    mean, half = found
    return f"{mean:,.{digits}f}" if half is None else f"{mean:,.{digits}f} ± {half:,.{digits}f}"
