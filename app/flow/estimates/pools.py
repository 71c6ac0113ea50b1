"""The posterior columns in memory: one pool a measurement, loaded on first use, moved by each observation."""

import asyncio
import datetime as dt
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.flow.estimates.columns import AUDITS, BoolArray, Columns, FloatArray, IntArray
from app.flow.estimates.store import Change, EstimateStore, LoadedRows
from app.flow.estimates.totals import Totals
from app.flow.rollouts.groups import holdout_threshold


@dataclass(slots=True)
class Pool:
    """Flat arrays by ordinal. `quarantined_until` is in seconds since the epoch, 0 when free.

    `n_moves` counts what was applied: it is the same while nothing has changed. `subsets` keeps rows that a filter
    admits, for as long as the set stays what it is.
    """

    problem_ids: IntArray
    holdout_keys: IntArray
    is_ready: BoolArray
    n_groups: IntArray
    quarantined_until: FloatArray
    columns: Columns
    skills: list[str]
    watermark: int
    state_version: int
    fork_index: int = 0
    n_moves: int = 0
    subsets: dict[Any, IntArray] = field(default_factory=dict)
    words: dict[tuple[str, str], BoolArray] = field(default_factory=dict)  # the same of queries
    totals: Totals | None = None  # once a query asked for them
    ready_keys: IntArray = field(init=False)  # hold-out keys, below any threshold where a problem is not ready
    marks: BoolArray = field(init=False)  # of the draw in hand; all False between draws
    _places: dict[str, int] = field(default_factory=dict)
    _n_groups_of_skill: dict[str, int] = field(default_factory=dict)
    _quarantined: set[int] = field(default_factory=set)
    _n_trained: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ready_keys = np.where(self.is_ready, self.holdout_keys, -1).astype(np.int32)
        self.marks = np.zeros(len(self.problem_ids), np.bool_)
        self._places = {name: place for place, name in enumerate(self.skills)}
        self._quarantined = set(np.flatnonzero(self.quarantined_until).tolist())

    @classmethod
    def of(cls, rows: LoadedRows) -> "Pool":
        """A pool from loaded rows."""
        pool = cls(
            problem_ids=rows.problem_ids,
            holdout_keys=rows.holdout_keys,
            is_ready=rows.is_ready,
            n_groups=rows.n_groups,
            quarantined_until=rows.quarantined_until,
            columns=rows.columns,
            skills=rows.skills,
            watermark=rows.watermark,
            state_version=rows.state_version,
            fork_index=rows.fork_index,
        )
        pool._follow(rows.abilities)
        return pool

    def __len__(self) -> int:
        """Number of problems."""
        return len(self.problem_ids)

    def is_behind(self, state_version: int, fork_index: int) -> bool:
        """Whether something changed since that observations do not bring."""
        return self.state_version < state_version or self.fork_index < fork_index

    def is_trained(self, holdout_share: float) -> BoolArray:
        """Problems that training may see: ready, and not held out."""
        return np.asarray(self.ready_keys >= holdout_threshold(holdout_share))

    def n_trained(self, holdout_share: float) -> int:
        """How many they are; counted once, since a pool is made anew when a state changes."""
        threshold = holdout_threshold(holdout_share)
        if threshold not in self._n_trained:
            self._n_trained[threshold] = int(self.is_trained(holdout_share).sum())
        return self._n_trained[threshold]

    def quarantined(self, now: dt.datetime) -> IntArray:
        """Rows set aside because their rollouts keep failing."""
        aside = self._quarantined.copy()  # at once: a preview reads beside the thread that counts
        rows = np.fromiter(aside, np.int64, len(aside))
        return rows[self.quarantined_until[rows] > now.timestamp()]

    def apply(self, change: Change) -> None:
        """Copy a committed change; a row that is newer here already stays."""
        n_before = self.n_moves
        for row in change.rows:
            ordinal = row["ordinal"]
            if ordinal >= len(self) or row["n_groups"] <= self.n_groups[ordinal]:
                continue
            self.n_moves = n_before + 1
            self.columns.put(ordinal, row)
            if self.totals is not None:
                self.totals.put(row)
            self.n_groups[ordinal] = row["n_groups"]
            until = row["quarantined_until"]
            self.quarantined_until[ordinal] = 0.0 if until is None else until.timestamp()
            (self._quarantined.add if until else self._quarantined.discard)(ordinal)
        self._follow(change.abilities)
        self.watermark = max(self.watermark, change.watermark)

    def _follow(self, abilities: list[dict[str, Any]]) -> None:
        """Copy abilities; a skill that is newer here already stays."""
        for row in abilities:
            skill, n_groups = row["skill"], row["n_groups"]
            if skill in self._places and n_groups > self._n_groups_of_skill.get(skill, 0):
                self.n_moves += 1
                self._n_groups_of_skill[skill] = n_groups
                self.columns.levels[self._places[skill]] = row["level"]
                self.columns.audits[self._places[skill]] = [row[name] for name in AUDITS]
        newest = max((row["index"] for row in abilities), default=0)
        self.columns.now_index = max(self.columns.now_index, newest)


class Pools:
    """The pools of one process; a restart loads them again from the database."""

    def __init__(self, store: EstimateStore) -> None:
        self._store = store
        self._pools: dict[int, Pool] = {}
        self._locks: dict[int, asyncio.Lock] = {}
        self._pending: dict[int, list[Change]] = {}
        self._loaded_under: dict[int, str] = {}
        self._moving = threading.Lock()  # a pool is put in place on the event loop

    async def get(self, measurement_id: int, n_problems: int, state_version: int, fork_index: int) -> Pool:
        """The pool of a measurement whose set holds `n_problems`.

        It is loaded on first use, and again after the set grew, the state of a problem changed, or the student forked.
        """
        async with self._locks.setdefault(measurement_id, asyncio.Lock()):
            pool = self._pools.get(measurement_id)
            if pool is None or len(pool) < n_problems or pool.is_behind(state_version, fork_index):
                await self._store.grow(measurement_id)
                pool = await self._loaded(measurement_id)
            return pool

    async def totals(self, measurement_id: int, pool: Pool) -> Totals:
        """A pool's counts by verdict, read when they are first asked for; from then on observations move them."""
        async with self._locks.setdefault(measurement_id, asyncio.Lock()):
            if pool.totals is None:
                with self._keeping_changes(measurement_id) as pending:
                    totals = await self._store.totals(measurement_id, len(pool))
                    with self._moving:
                        for row in [row for change in pending for row in change.rows]:
                            totals.put(row)
                        pool.totals = totals
            return pool.totals

    @contextmanager
    def _keeping_changes(self, measurement_id: int) -> Iterator[list[Change]]:
        """What commits while rows are read: it is kept and applied after."""
        pending: list[Change] = []
        self._pending[measurement_id] = pending
        try:
            yield pending
        finally:
            del self._pending[measurement_id]

    async def _loaded(self, measurement_id: int) -> Pool:
        with self._keeping_changes(measurement_id) as pending:
            rows = await self._store.load(measurement_id)
            pool = Pool.of(rows)
            with self._moving:
                for change in pending:
                    pool.apply(change)
                self._pools[measurement_id] = pool
                self._loaded_under[measurement_id] = rows.snapshot
        return pool

    def n_groups(self) -> dict[int, int]:
        """Groups counted in each pool, by measurement."""
        return {number: int(pool.n_groups.sum()) for number, pool in list(self._pools.items())}

    def loaded(self) -> list[tuple[int, str]]:
        """Measurements with a pool, each with the database's snapshot that it was loaded under."""
        return list(self._loaded_under.items())

    def is_current(self, measurement_id: int, pool: Pool) -> bool:
        """Whether a pool is the one that observations move."""
        return self._pools.get(measurement_id) is pool

    async def subset(
        self, measurement_id: int, pool: Pool, tags: Sequence[str] | None, sources: Sequence[str] | None
    ) -> IntArray | None:
        """Rows of a pool with any of the tags and of the sources; None is every row."""
        if tags is None and sources is None:
            return None
        key = (None if tags is None else tuple(tags), None if sources is None else tuple(sources))
        if key not in pool.subsets:
            rows = await self._store.rows_with(measurement_id, tags, sources)
            pool.subsets[key] = rows[rows < len(pool)]
        return pool.subsets[key]

    def committed(self, change: Change) -> None:
        """Take up a committed change, on the thread that committed it: the one that draws."""
        with self._moving:
            if change.measurement_id in self._pending:
                self._pending[change.measurement_id].append(change)
            if change.measurement_id in self._pools:
                self._pools[change.measurement_id].apply(change)
