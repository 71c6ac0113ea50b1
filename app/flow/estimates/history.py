"""How pass rates were spread at each checkpoint, counted from the log once and again where something was added.

A checkpoint's groups hardly change once the next one is there, so that what is kept of old checkpoints stays: only
those with new observations are counted again, by the index of checkpoints.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from sqlalchemy import Connection, func, select

from app.db.engine import Database
from app.db.tables import observations
from app.db.transaction import reads
from app.flow.estimates.estimators import FRONTIER
from app.flow.estimates.holdout import NOTHING, holdout_points, of_workers
from app.flow.rollouts.measurements import measurement_row
from paced.wire import HoldoutPoint, ObservationSource

MAX_BINS = 16
UNIFORM = frozenset({ObservationSource.HOLDOUT, ObservationSource.AUDIT})  # chosen without regard to p
# Reports take ids before they commit: one that is over now may lie this far behind the newest
MARGIN = 32_768
EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Groups of one checkpoint that workers measured: by k/n to the nearest of even steps, and on the frontier.

    `counts` runs from 0 to 1, in steps of one answer of the measurement's groups where those are few.
    """

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
    counted_at: float = 0.0


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
            query = select(o.checkpoint_index).distinct().where(o.measurement_id + NOTHING == measurement_id)
            query = query.where(o.observation_id > watermark - MARGIN)
        return newest, sorted(conn.execute(query).scalars())

    @reads
    def spread(self, conn: Connection, measurement_id: int, checkpoint: int) -> Spread:
        """Counts of one checkpoint."""
        o = observations.c
        groups = (
            select(o.source, o.n_passed, o.n_counted, func.count())
            .where(of_workers(measurement_id, checkpoint), o.n_counted > 0)
            .group_by(o.source, o.n_passed, o.n_counted)
        )
        rows = [(row[0], row[1] / row[2], row[3]) for row in conn.execute(groups)]
        n_steps = min(measurement_row(conn, measurement_id)["n_rollouts"], MAX_BINS)
        held_out = next(iter(holdout_points(conn, measurement_id, checkpoint)), None)
        return _spread(checkpoint, rows, n_steps, held_out)


def _spread(
    checkpoint: int,
    rows: Sequence[tuple[ObservationSource, float, int]],
    n_steps: int,
    holdout: HoldoutPoint | None,
) -> Spread:
    bins: Counter[int] = Counter()
    sums: defaultdict[tuple[bool, bool], int] = defaultdict(int)  # by whether uniform, whether on the frontier
    for source, rate, n in rows:
        bins[round(rate * n_steps)] += n
        sums[source in UNIFORM, FRONTIER[0] < rate < FRONTIER[1]] += n
    return Spread(
        checkpoint_index=checkpoint,
        counts=[bins[i] for i in range(n_steps + 1)],
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
        if task is None or (task.done() and self._is_old(measurement_id)):
            task = asyncio.create_task(self._count(measurement_id))
            self._counting[measurement_id] = task
        done, _ = await asyncio.wait([task], timeout=patience_s)
        if done:
            task.result()  # raises what the count raised
        known = self._known.get(measurement_id)
        spreads = [] if known is None else [known.spreads[index] for index in sorted(known.spreads)]
        return spreads, bool(done)

    def _is_old(self, measurement_id: int) -> bool:
        known = self._known.get(measurement_id)
        return known is None or asyncio.get_running_loop().time() - known.counted_at > EVERY_S

    async def __aenter__(self) -> Self:
        """Counting stops at the end of the block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop counting."""
        for task in self._counting.values():
            task.cancel()
        await asyncio.gather(*self._counting.values(), return_exceptions=True)

    async def _count(self, measurement_id: int) -> None:
        version = await self._store.version(measurement_id)
        known = self._known.get(measurement_id)
        if known is None:
            known = self._known[measurement_id] = _Known(version)
        elif known.version != version:
            known = _Known(version)  # the former counts are shown until these are whole
        newest, touched = await self._store.since(measurement_id, known.watermark)
        for checkpoint in reversed(touched if newest > known.watermark else []):  # the newest first
            known.spreads[checkpoint] = await self._store.spread(measurement_id, checkpoint)
        known.watermark = newest
        self._known[measurement_id] = known
        known.counted_at = asyncio.get_running_loop().time()
