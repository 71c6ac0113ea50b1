"""Metrics of runs as short series, one run's or several laid over each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.errors import Invalid
from app.flow.estimates.columns import FloatArray
from app.flow.training.holdout import Holdouts, HoldoutStep
from app.flow.training.series import Series, enveloped, group_name, grouped, pooled, smoothed
from app.flow.training.store import TrainingStore
from paced.wholes import measured_whole
from paced.wire import Axis, PooledSeries, Run, RunComparison, RunSeries, Stage

HOLDOUT = "pass_rate"  # of the hold-out, at the checkpoints of a run: no metric that a trainer sends
LAID_BY = {Axis.TOKENS: "n_tokens", Axis.TIME: "duration_s"}  # the metric whose running sum is the place
QUOTIENTS = {"tokens_per_s": ("n_tokens", "duration_s")}  # metrics made of two others where a trainer sends those
N_BUCKETS = 300


@dataclass(frozen=True, slots=True)
class Comparison:
    """What to lay over each other, and how finely."""

    run_ids: Sequence[str]
    metric: str
    by: Axis = Axis.STEP
    n_buckets: int = N_BUCKETS
    smooth: int = 1
    patience_s: float = 30.0  # for the hold-out of old checkpoints


@dataclass(frozen=True, slots=True)
class Curves:
    """Steps of one run: places on an axis, stages, and metrics by name, NaN where a step lacks one."""

    steps: FloatArray
    x: FloatArray
    stages: Sequence[Stage]
    columns: dict[str, FloatArray]

    def series(self, metric: str) -> Series:
        """The steps that have a metric."""
        y = self.columns[metric]
        is_there = np.isfinite(y)
        return Series(self.x[is_there], y[is_there])

    def places(self, n_done: Sequence[int], by: Axis) -> FloatArray:
        """Where on the axis so many steps are done."""
        if by == Axis.STEP:
            return np.array(n_done, np.float64)
        return np.concatenate([[0.0], self.x])[np.searchsorted(self.steps, n_done)]

    @property
    def switches(self) -> list[float]:
        """Places where a stage begins after another."""
        stages = self.stages
        return [float(self.x[i]) for i in range(1, len(stages)) if stages[i] != stages[i - 1]]


async def names_of(store: TrainingStore, run_id: str) -> set[str]:
    """Metrics that a run has, made ones included."""
    names = await store.metric_names(run_id)
    return names | {name for name, parts in QUOTIENTS.items() if names.issuperset(parts)}


async def curves(store: TrainingStore, run_id: str, metrics: Sequence[str], by: Axis = Axis.STEP) -> Curves:
    """Some metrics of one run."""
    made = {name: QUOTIENTS[name] for name in metrics if name in QUOTIENTS}
    axis = LAID_BY.get(by)
    wanted = dict.fromkeys([*metrics, *(part for parts in made.values() for part in parts), *filter(None, [axis])])
    steps, stages, columns = await store.columns(run_id, list(wanted))
    for name, (above, below) in made.items():
        with np.errstate(divide="ignore", invalid="ignore"):
            quotient = columns[above] / columns[below]
        columns[name] = np.where(np.isfinite(columns[name]), columns[name], quotient)
    x = steps if axis is None else np.cumsum(np.nan_to_num(columns[axis]))
    return Curves(steps, x, stages, columns)


async def compare(store: TrainingStore, holdouts: Holdouts, wanted: Comparison) -> RunComparison:
    """Each run in buckets, and the pooled runs of each group; raises NotFound, Invalid where none has the metric."""
    runs = [await store.get(run_id) for run_id in dict.fromkeys(wanted.run_ids)]
    names = sorted({HOLDOUT, *[name for run in runs for name in await names_of(store, run.run_id)]})
    needed = [wanted.metric, *filter(None, [LAID_BY.get(wanted.by)])]
    missing = [name for name in needed if name not in names]
    if missing and len(names) > 1:
        raise Invalid(
            f"none of these runs has the metric {missing[0]!r}; they have {', '.join(names)}", code="unknown_metric"
        )
    is_holdout = wanted.metric == HOLDOUT
    laid = [await curves(store, run.run_id, [] if is_holdout else [wanted.metric], wanted.by) for run in runs]
    if is_holdout:
        measured = [await holdouts.of_run(run, wanted.patience_s) for run in runs]
        many = [_holdout(steps, each, wanted.by) for steps, each in zip(measured, laid, strict=True)]
    else:
        many = [each.series(wanted.metric) for each in laid]
    return RunComparison(
        metric=wanted.metric,
        by=wanted.by,
        metrics=names,
        runs=[_public(run, series, each.switches, wanted) for run, series, each in zip(runs, many, laid, strict=True)],
        groups=_pooled(runs, many, wanted),
    )


def _holdout(steps: Sequence[HoldoutStep], laid: Curves, by: Axis) -> Series:
    after = {one.point.checkpoint_index: one.step for one in steps}
    whole = measured_whole([one.point for one in steps])
    y = np.array([point.pass_rate for point in whole], np.float64)
    return Series(laid.places([after[point.checkpoint_index] for point in whole], by), y)


def _public(run: Run, series: Series, switches: list[float], wanted: Comparison) -> RunSeries:
    return RunSeries(
        run_id=run.run_id,
        name=run.name,
        group=group_name(run.name),
        state=run.state,
        n_points=len(series),
        switches=switches,
        **enveloped(series, wanted.smooth, wanted.n_buckets).lists(),
    )


def _pooled(runs: Sequence[Run], many: Sequence[Series], wanted: Comparison) -> list[PooledSeries]:
    found = []
    for places in grouped([(run.name, run.config) for run in runs]):
        smooth = [Series(many[place].x, smoothed(many[place].y, wanted.smooth)) for place in places]
        band = pooled(smooth, wanted.n_buckets)
        if band is not None:
            ids = [runs[place].run_id for place in places]
            found.append(PooledSeries(group=group_name(runs[places[0]].name), run_ids=ids, **band.lists()))
    return found
