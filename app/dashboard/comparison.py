"""Several runs laid over each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request

from app.dashboard.choice import Choice, Chosen
from app.dashboard.curves import comparison_figure, unlike
from app.dashboard.figures import Figure
from app.dashboard.runs import MAX_RUNS
from app.dashboard.twins import page
from app.flow.training.comparing import Comparison
from paced.wire import Axis, Run, RunComparison, RunSeries

router = APIRouter(include_in_schema=False)
MAX_COMPARED = 16
OFFERED = 30  # runs in each list, beside those that are compared
LIVE = ("runs", "observations", "checkpoints")
PATIENCE_S = 1.0  # for counts of old checkpoints
USUAL = ("kl_per_token", "loss")


@dataclass(frozen=True, slots=True)
class Point:
    """One bucket of one run."""

    run_id: str
    run: str
    x: float
    low: float
    mean: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What a series comes to: its last tenth, and its extremes."""

    series: RunSeries
    label: str
    end: float | None
    least: float | None
    largest: float | None


@dataclass(frozen=True, slots=True)
class ComparisonPage:
    """Runs to choose from, `others` of other measurements, and those chosen laid over each other."""

    choice: Choice
    runs: Sequence[Run]
    others: Sequence[Run]
    run_ids: Sequence[str]
    metric: str
    by: Axis
    smooth: int
    comparison: RunComparison | None = None

    @property
    def rows(self) -> list[Point]:
        """The CSV: a line a bucket of every run."""
        return [
            Point(run.run_id, run.name, *values)
            for run in (self.comparison.runs if self.comparison else [])
            for values in zip(run.x, run.low, run.mean, run.high, strict=True)
        ]

    @property
    def summaries(self) -> list[Summary]:
        """A line a run."""
        runs = self.comparison.runs if self.comparison else []
        return [_summary(run, label) for run, label in zip(runs, unlike([run.name for run in runs]), strict=True)]


def figures(found: ComparisonPage) -> dict[str, Figure]:
    """The page's figure."""
    return {"comparison": comparison_figure(found.comparison)} if found.comparison else {}


@page(router, "/runs/compare", "comparison.html", rows=Point, figures=figures, live=LIVE)
async def comparison(
    request: Request,
    choice: Chosen,
    run_id: Annotated[list[str] | None, Query(max_length=MAX_COMPARED)] = None,
    metric: str = "",
    by: Axis = Axis.STEP,
    smooth: Annotated[int, Query(ge=1, le=10_000)] = 1,
) -> ComparisonPage:
    """The page of the runs that the address names."""
    training: Any = request.app.state.training
    taken = list(dict.fromkeys(run_id or []))
    ours = [each.curriculum_id for each in choice.curricula]
    runs = _offered(await training.of_curricula(ours, MAX_RUNS), taken)
    others = _offered(await training.of_curricula(ours, MAX_RUNS, is_other=True), taken)
    if not taken:
        return ComparisonPage(choice, runs, others, [], metric, by, smooth)
    names: set[str] = set().union(*[await training.metric_names(each) for each in taken])
    metric = metric or next((name for name in USUAL if name in names), min(names, default="loss"))
    found = await training.compare(Comparison(taken, metric, by, smooth=smooth, patience_s=PATIENCE_S))
    return ComparisonPage(choice, runs, others, taken, metric, by, smooth, found)


def _offered(runs: Sequence[Run], taken: Sequence[str]) -> list[Run]:
    return [run for place, run in enumerate(runs) if place < OFFERED or run.run_id in taken]


def _summary(series: RunSeries, label: str) -> Summary:
    if not series.mean:
        return Summary(series, label, None, None, None)
    tail = series.mean[-max(1, len(series.mean) // 10) :]
    return Summary(series, label, float(np.mean(tail)), min(series.low), max(series.high))
