"""Runs laid over each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.errors import Invalid
from app.flow.estimates.columns import FloatArray
from app.flow.training.series import Series, bucketed, group_name, grouped, pooled
from app.flow.training.store import TrainingStore
from paced.wire import Axis, PooledSeries, Run, RunComparison, RunSeries

LAID_BY = {Axis.TOKENS: "n_tokens", Axis.TIME: "duration_s"}  # the metric whose running sum is the place


@dataclass(frozen=True, slots=True)
class Comparison:
    """What to lay over each other, and how finely."""

    run_ids: Sequence[str]
    metric: str
    by: Axis = Axis.STEP
    n_buckets: int = 300


async def compare(store: TrainingStore, wanted: Comparison) -> RunComparison:
    """Each run in buckets, and the pooled runs of each group; raises NotFound, Invalid where none has the metric."""
    runs = [await store.get(run_id) for run_id in dict.fromkeys(wanted.run_ids)]
    names = sorted({name for run in runs for name in await store.metric_names(run.run_id)})
    needed = [wanted.metric, *filter(None, [LAID_BY.get(wanted.by)])]
    missing = [name for name in needed if name not in names]
    if missing and names:
        raise Invalid(
            f"none of these runs has the metric {missing[0]!r}; they have {', '.join(names)}", code="unknown_metric"
        )
    laid = [await _laid(store, run, wanted) for run in runs]
    return RunComparison(
        metric=wanted.metric,
        by=wanted.by,
        metrics=names,
        runs=[
            _public(run, series, switches, wanted.n_buckets) for run, (series, switches) in zip(runs, laid, strict=True)
        ],
        groups=_pooled(runs, [series for series, _ in laid], wanted.n_buckets),
    )


async def _laid(store: TrainingStore, run: Run, wanted: Comparison) -> tuple[Series, list[float]]:
    """A run's points by the axis, and where its stages change."""
    axis = LAID_BY.get(wanted.by)
    steps, stages, columns = await store.columns(run.run_id, [wanted.metric, *filter(None, [axis])])
    x = steps if axis is None else np.cumsum(np.nan_to_num(columns[axis]))
    y: FloatArray = columns[wanted.metric]
    is_there = np.isfinite(y)
    changes = [place for place in range(1, len(stages)) if stages[place] != stages[place - 1]]
    return Series(x[is_there], y[is_there]), [float(x[place]) for place in changes]


def _public(run: Run, series: Series, switches: list[float], n_buckets: int) -> RunSeries:
    return RunSeries(
        run_id=run.run_id,
        name=run.name,
        group=group_name(run.name),
        state=run.state,
        n_points=len(series),
        switches=switches,
        **bucketed(series, n_buckets).lists(),
    )


def _pooled(runs: Sequence[Run], many: Sequence[Series], n_buckets: int) -> list[PooledSeries]:
    found = []
    for places in grouped([(run.name, run.config) for run in runs]):
        band = pooled([many[place] for place in places], n_buckets)
        if band is not None:
            ids = [runs[place].run_id for place in places]
            found.append(PooledSeries(group=group_name(runs[places[0]].name), run_ids=ids, **band.lists()))
    return found
