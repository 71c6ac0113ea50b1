"""How pass rates were spread at each checkpoint, counted from the log once and again where something was added.

A checkpoint's groups hardly change once the next one is there, so that what is kept of old checkpoints stays: only
those with new observations are counted again, by the index of checkpoints.
"""

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, select

from app.db.engine import Database
from app.db.tables import estimates, observations
from app.db.transaction import reads
from app.flow.estimates.estimators import FRONTIER
from app.flow.rollouts.measurements import is_held_out, measurement_row
from paced.wire import HoldoutPoint, ObservationSource

N_BINS = 20
UNIFORM = frozenset({ObservationSource.HOLDOUT, ObservationSource.AUDIT})  # chosen without regard to p
# Reports take ids before they commit: one that is over now may lie this far behind the newest
MARGIN = 32_768


@dataclass(frozen=True, slots=True)
class Spread:
    """Groups of one checkpoint that workers measured: by bin of k/n, and how many lay on the frontier."""

    checkpoint_index: int
    counts: list[int]
    n_groups: int
    n_frontier: int
    n_uniform: int  # of them, those that were chosen uniformly
    n_uniform_frontier: int
    holdout: HoldoutPoint | None


@dataclass(slots=True)
class _Known:
    """What is counted of a measurement, up to an observation, under one version of the set and one hold-out."""

    version: tuple[int, float]
    watermark: int = 0
    spreads: dict[int, Spread] = field(default_factory=dict)


class HistoryStore:
    """Statements on the log, by checkpoint."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @reads
    def version(self, conn: Connection, measurement_id: int) -> tuple[int, float]:
        """What old counts depend on beside the log: the states of problems, and the hold-out share."""
        row = measurement_row(conn, measurement_id)
        return row["state_version"], row["holdout_share"]

    @reads
    def since(self, conn: Connection, measurement_id: int, watermark: int) -> tuple[int, list[int]]:
        """The newest observation, and the checkpoints of those above a watermark."""
        o = observations.c
        newest = conn.execute(select(func.max(o.observation_id))).scalar() or 0
        query = select(o.checkpoint_index).distinct().where(o.measurement_id == measurement_id)
        if watermark:
            # 0 is added so that the database takes the range of ids, not the whole measurement's index
            query = select(o.checkpoint_index).distinct().where(o.measurement_id + 0 == measurement_id)
            query = query.where(o.observation_id > watermark - MARGIN)
        return newest, sorted(conn.execute(query).scalars())

    @reads
    def spread(self, conn: Connection, measurement_id: int, checkpoint: int) -> Spread:
        """Counts of one checkpoint."""
        o = observations.c
        mine = (o.measurement_id == measurement_id) & (o.checkpoint_index == checkpoint) & o.batch_id.is_(None)
        groups = (
            select(o.source, o.n_passed, o.n_counted, func.count())
            .where(mine, o.n_counted > 0)
            .group_by(o.source, o.n_passed, o.n_counted)
        )
        rows = [(row[0], row[1] / row[2], row[3]) for row in conn.execute(groups)]
        return _spread(checkpoint, rows, _holdout(conn, measurement_id, checkpoint))


def _holdout(conn: Connection, measurement_id: int, checkpoint: int) -> HoldoutPoint | None:
    """Mean over problems with its standard error, as GET /v1/measurements/{id}/holdout has it."""
    o, e = observations.c, estimates.c
    is_held = is_held_out(measurement_row(conn, measurement_id)["holdout_share"])
    each = (
        select(func.sum(o.n_passed).label("k"), func.sum(o.n_counted).label("n"))
        .join(estimates, (e.measurement_id == o.measurement_id) & (e.problem_id == o.problem_id))
        .where(o.measurement_id == measurement_id, o.checkpoint_index == checkpoint)
        .where(o.n_counted > 0, o.batch_id.is_(None), is_held)
        .group_by(o.problem_id)
        .subquery()
    )
    query = select(each.c.k, each.c.n, func.count()).group_by(each.c.k, each.c.n)
    groups = [(int(row[0]) / int(row[1]), int(row[1]), row[2]) for row in conn.execute(query)]
    n = sum(count for *_, count in groups)
    if n == 0:
        return None
    mean = sum(rate * count for rate, _, count in groups) / n
    square = sum((rate - mean) ** 2 * count for rate, _, count in groups)
    return HoldoutPoint(
        checkpoint_index=checkpoint,
        n_problems=n,
        n_rollouts=sum(n_counted * count for _, n_counted, count in groups),
        pass_rate=mean,
        se=math.sqrt(square / (n - 1) / n) if n > 1 else None,
    )


def _spread(
    checkpoint: int, rows: Sequence[tuple[ObservationSource, float, int]], holdout: HoldoutPoint | None
) -> Spread:
    bins: Counter[int] = Counter()
    sums: defaultdict[tuple[bool, bool], int] = defaultdict(int)  # by whether uniform, whether on the frontier
    for source, rate, n in rows:
        bins[min(int(rate * N_BINS), N_BINS - 1)] += n
        sums[source in UNIFORM, FRONTIER[0] < rate < FRONTIER[1]] += n
    return Spread(
        checkpoint_index=checkpoint,
        counts=[bins[i] for i in range(N_BINS)],
        n_groups=sum(sums.values()),
        n_frontier=sums[True, True] + sums[False, True],
        n_uniform=sums[True, True] + sums[True, False],
        n_uniform_frontier=sums[True, True],
        holdout=holdout,
    )


class History:
    """What is counted, in this process; counting goes on beside the requests that ask for it."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store
        self._known: dict[int, _Known] = {}
        self._counting: dict[int, asyncio.Task[None]] = {}

    async def spreads(self, measurement_id: int, patience_s: float) -> tuple[list[Spread], bool]:
        """Spreads by checkpoint, and whether they are complete; counting that takes longer is not waited for."""
        task = self._counting.get(measurement_id)
        if task is None or task.done():
            task = asyncio.create_task(self._count(measurement_id))
            self._counting[measurement_id] = task
        done, _ = await asyncio.wait([task], timeout=patience_s)
        if done:
            task.result()  # raises what the count raised
        known = self._known.get(measurement_id)
        spreads = [] if known is None else [known.spreads[index] for index in sorted(known.spreads)]
        return spreads, bool(done)

    async def _count(self, measurement_id: int) -> None:
        version = await self._store.version(measurement_id)
        known = self._known.get(measurement_id)
        if known is None or known.version != version:
            known = _Known(version)
            self._known[measurement_id] = known
        newest, touched = await self._store.since(measurement_id, known.watermark)
        if newest == known.watermark:
            return
        for checkpoint in reversed(touched):  # the newest are looked at first
            known.spreads[checkpoint] = await self._store.spread(measurement_id, checkpoint)
        known.watermark = newest
