"""What is known of a student's pass rates: posteriors, hold-out progress, the frontier."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import Connection

from app.db.engine import after_commit
from app.flow.estimates.columns import IntArray
from app.flow.estimates.estimators import PlugIn, is_settled
from app.flow.estimates.finding import Finder, Found, Wanted, described
from app.flow.estimates.pools import Pool, Pools
from app.flow.estimates.selecting import Weighing
from app.flow.estimates.store import EstimateStore
from app.flow.estimates.timeline import Effect, HistoryPoint, effect, timeline
from app.flow.rollouts.groups import Group
from app.ids import numbered
from paced.wire import Dispute, Frontier, HoldoutPoint, Observation, ProblemEstimate

N_BINS = 20


class EstimateService:
    """Stage 4 of the flow, and the observer of stage 3."""

    def __init__(self, store: EstimateStore, pools: Pools, finder: Finder) -> None:
        self._store = store
        self._pools = pools
        self._finder = finder

    def write(self, conn: Connection, measurement_id: int, groups: Sequence[Group], now: dt.datetime) -> dict[int, int]:
        """Count groups in the caller's transaction; draws see them once it is committed."""
        ids, change = self._store.write(conn, measurement_id, groups, now)
        after_commit(conn, lambda: self._pools.committed(change))
        return ids

    async def pool(self, measurement_id: int, n_problems: int, state_version: int, fork_index: int) -> Pool:
        """The arrays to draw from, at least as new as the set's size and these versions."""
        return await self._pools.get(measurement_id, n_problems, state_version, fork_index)

    async def current(self, measurement_id: int) -> Pool:
        """The arrays as new as the measurement's set is."""
        return await self._of_head(await self._store.head(measurement_id))

    async def _of_head(self, head: dict[str, Any]) -> Pool:
        return await self._pools.get(
            head["measurement_id"], head["n_problems"], head["state_version"], head["fork_index"]
        )

    def is_current(self, measurement_id: int, pool: Pool) -> bool:
        """Whether a pool is the one that observations move."""
        return self._pools.is_current(measurement_id, pool)

    async def subset(
        self, measurement_id: int, pool: Pool, tags: Sequence[str] | None, sources: Sequence[str] | None
    ) -> IntArray | None:
        """Rows of a pool with any of the tags and of the sources; None is every row."""
        return await self._pools.subset(measurement_id, pool, tags, sources)

    def collect(self) -> Iterator[Metric]:
        """For `/metrics`: how much of the log this process draws from."""
        gauge = GaugeMetricFamily("paced_groups_in_memory", "Groups that draws know of", labels=["measurement"])
        for number, n_groups in self._pools.n_groups().items():
            gauge.add_metric([numbered("mea", number)], n_groups)
        yield gauge

    async def find(self, measurement_id: int, wanted: Wanted, weighing: Weighing | None = None) -> Found:
        """One page of the problems that a query selects, weighed as a curriculum does if one is given."""
        return await self._finder.find(measurement_id, wanted, weighing)

    async def get(self, measurement_id: int, problem_id: int) -> ProblemEstimate:
        """One estimate with its observations, newest first."""
        row = await self._store.get(measurement_id, problem_id)
        found = await self._store.observations(measurement_id, [problem_id])
        return ProblemEstimate.model_validate({**described([row])[0], "observations": found})

    async def timeline(self, measurement_id: int, problem_id: int) -> list[HistoryPoint]:
        """The pass rate of one problem after each of its observations, oldest first."""
        row = await self._store.get(measurement_id, problem_id)
        found = await self._store.observations(measurement_id, [problem_id])
        return timeline(row, found, await self._store.line(measurement_id))

    async def effect(self, measurement_id: int, dispute: Dispute) -> Effect:
        """What a review of a stored answer would do to the pass rate shown of its problem."""
        row = await self._store.get(measurement_id, dispute.problem_id)
        found = await self._store.observations(measurement_id, [dispute.problem_id])
        line = await self._store.line(measurement_id)
        return effect(row, found, line, dispute.observation_id, dispute.verdict)

    async def observations(
        self, measurement_id: int, problem_ids: list[int], watermark: int
    ) -> dict[int, list[Observation]]:
        """Observations known at a watermark, by problem."""
        by_problem = defaultdict(list)
        for observation in await self._store.observations(measurement_id, problem_ids, watermark):
            by_problem[observation.problem_id].append(observation)
        return by_problem

    async def holdout(self, measurement_id: int) -> list[HoldoutPoint]:
        """Mean pass rate of the hold-out at each checkpoint, its standard error over problems."""
        return await self._store.holdout(measurement_id)

    async def frontier(self, measurement_id: int) -> Frontier:
        """Histogram of the newest pass rates of the training problems."""
        head = await self._store.head(measurement_id)
        pool = await self._of_head(head)
        is_trained = pool.is_trained(head["holdout_share"])
        p = PlugIn(is_first=False).pass_rate(pool.columns)[is_trained]
        known = p[~np.isnan(p)]
        counts, edges = np.histogram(known, bins=N_BINS, range=(0.0, 1.0))
        share = 1.0 - is_settled(known).mean() if len(known) else None
        return Frontier(
            edges=edges.round(10).tolist(),
            counts=counts.tolist(),
            n_measured=len(known),
            n_unmeasured=len(p) - len(known),
            frontier_share=None if share is None else float(share),
            mean=float(known.mean()) if len(known) else None,
        )
