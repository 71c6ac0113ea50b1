"""Who measures, how fast, what waits, which grader is sick: the measuring of one measurement."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request

from app.dashboard.choice import Choice, Chosen
from app.dashboard.figures import Figure, axis, layout
from app.dashboard.twins import page
from paced.wire import Alarm, Verdict, WorkerActivity, Workers

router = APIRouter(include_in_schema=False)
PATIENCE_S = 0.2  # for counts of old checkpoints
COLOURS = {
    Verdict.PASS: "$green",
    Verdict.FAIL: "$blue",
    Verdict.TRUNCATED: "$sky",
    Verdict.TIMEOUT: "$orange",
    Verdict.GRADER_ERROR: "$vermilion",
    Verdict.INFRASTRUCTURE: "$purple",
}


@dataclass(frozen=True, slots=True)
class WorkersPage:
    """What workers did, and what needs a person; None where nothing is measured."""

    choice: Choice
    workers: Workers | None = None
    alarms: Sequence[Alarm] = ()
    is_watched: bool = True

    @property
    def rows(self) -> Sequence[WorkerActivity]:
        """The table of the page."""
        return [] if self.workers is None else self.workers.workers

    @property
    def tokens_per_s(self) -> float:
        """Of all workers together, over the last five minutes."""
        return sum(worker.tokens_per_s for worker in self.rows)


def figures(found: WorkersPage) -> dict[str, Figure]:
    """The page's figures."""
    if found.workers is None:
        return {}
    return {"minutes": _minutes(found.workers), "verdicts": _verdicts(found.workers)}


def _minutes(workers: Workers) -> Figure:
    minutes = workers.minutes
    places = [minute.minute for minute in minutes]
    rates = [minute.n_tokens / 60 for minute in minutes]
    bars = {"type": "bar", "x": places, "y": rates, "marker": {"color": "$blue"}, "name": "tokens/s", "width": 50_000}
    return Figure(
        title="Tokens a second",
        data=[{**bars, "hovertemplate": "%{x|%H:%M}: %{y:,.0f} tokens/s<extra></extra>"}],
        layout=layout(
            xaxis=axis("minute (UTC)", type="date", range=[workers.at - dt.timedelta(hours=1), workers.at]),
            yaxis=axis("tokens/s", rangemode="tozero"),
        ),
        columns=("minute (UTC)", "groups", "answers", "tokens/s"),
        rows=[
            (f"{minute.minute:%H:%M}", minute.n_groups, minute.n_answers, rate)
            for minute, rate in zip(minutes, rates, strict=True)
        ],
        about="Of all workers, by the minute in which they reported, for an hour.",
    )


def _verdicts(workers: Workers) -> Figure:
    total = sum(workers.verdicts.values())
    names = [verdict for verdict in COLOURS if workers.verdicts.get(verdict)]
    counts = [workers.verdicts[verdict] for verdict in names]
    labels = [name.value.replace("_", " ") for name in names]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": counts,
        "y": labels,
        "text": [f"{n / total:.1%}" for n in counts],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": [COLOURS[name] for name in names]},
        "hovertemplate": "%{y}: %{x:,}<extra></extra>",
    }
    return Figure(
        title="Verdicts of the last hour",
        data=[bars],
        layout=layout(
            xaxis=axis("answers", range=[0, 1.15 * max(counts, default=1)]),
            yaxis={"autorange": "reversed", "type": "category"},
            bargap=0.3,
        ),
        columns=("verdict", "answers", "share"),
        rows=[(label, n, f"{n / total:.1%}") for label, n in zip(labels, counts, strict=True)],
        about="Pass and fail say something of the student, and truncated where the profile counts it as a failure; "
        "the others are work lost.",
    )


@page(router, "/workers", "workers.html", rows=WorkerActivity, figures=figures, live=("observations", "leases"))
async def workers(request: Request, choice: Chosen) -> WorkersPage:
    """The page of one measurement."""
    if choice.measurement is None:
        return WorkersPage(choice)
    state: Any = request.app.state
    measurement_id = choice.measurement.measurement_id
    seen = await state.rollouts.workers(measurement_id)
    alarms = await state.alarms.check(measurement_id, workers=seen, patience_s=PATIENCE_S)
    is_watched = bool(alarms) or await state.alarms.is_watched(measurement_id)
    return WorkersPage(choice, seen, alarms, is_watched)
