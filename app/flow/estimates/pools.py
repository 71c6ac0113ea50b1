"""The posterior columns in memory: one pool a measurement, loaded on first use, moved by each observation."""

import asyncio
import datetime as dt
import threading
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from app.flow.estimates.columns import BoolArray, Columns, FloatArray, IntArray
from app.flow.estimates.store import Change, EstimateStore, LoadedRows
from app.flow.rollouts.groups import holdout_threshold

N_MOVES_KEPT = 4096


@dataclass(slots=True)
class Pool:
    """Flat arrays by ordinal. `quarantined_until` is in seconds since the epoch, 0 when free."""

    problem_ids: IntArray
    holdout_keys: IntArray
    is_ready: BoolArray
    n_groups: IntArray
    quarantined_until: FloatArray
    columns: Columns
    rows_of_skill: dict[str, IntArray]
    n_groups_of_skill: dict[str, int]
    watermark: int
    state_version: int
    n_moves: int = 0
    _moves: deque[tuple[IntArray, bool]] = field(default_factory=lambda: deque(maxlen=N_MOVES_KEPT))
    _quarantined: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, rows: LoadedRows) -> "Pool":
        """A pool from loaded rows."""
        until = np.array([_seconds(moment) for moment in rows.quarantined_until], np.float64)
        pool = cls(
            problem_ids=rows.problem_ids,
            holdout_keys=rows.holdout_keys,
            is_ready=rows.is_ready,
            n_groups=rows.n_groups,
            quarantined_until=until,
            columns=rows.columns,
            rows_of_skill=_rows_of(rows.skills),
            n_groups_of_skill={},
            watermark=rows.watermark,
            state_version=rows.state_version,
        )
        pool._quarantined = set(np.flatnonzero(until).tolist())
        pool._follow(rows.abilities)
        return pool

    def __len__(self) -> int:
        """Number of problems."""
        return len(self.problem_ids)

    def is_trained(self, holdout_share: float) -> BoolArray:
        """Problems that training may see: ready, and not held out."""
        return self.is_ready & (self.holdout_keys >= holdout_threshold(holdout_share))

    def is_quarantined(self, now: dt.datetime) -> BoolArray:
        """Problems set aside because their rollouts keep failing."""
        return np.asarray(self.quarantined_until > now.timestamp())

    def quarantined(self, now: dt.datetime) -> IntArray:
        """The same as rows, without looking at every problem."""
        rows = np.fromiter(self._quarantined, np.int64, len(self._quarantined))
        return rows[self.quarantined_until[rows] > now.timestamp()]

    def moved_since(self, n_moves: int, *, with_abilities: bool) -> IntArray | None:
        """Rows whose columns moved since `n_moves` was this pool's count; None when that is too long ago."""
        n_new = self.n_moves - n_moves
        if n_new > len(self._moves):
            return None
        recent = islice(self._moves, len(self._moves) - n_new, None)
        rows = [rows for rows, is_ability in recent if with_abilities or not is_ability]
        return np.unique(np.concatenate(rows)) if rows else _NO_ROWS

    def _note(self, rows: IntArray, *, is_ability: bool) -> None:
        self._moves.append((rows, is_ability))
        self.n_moves += 1

    def apply(self, change: Change) -> None:
        """Copy a committed change; a row that is newer here already stays."""
        for row in change.rows:
            ordinal = row["ordinal"]
            if ordinal >= len(self) or row["n_groups"] < self.n_groups[ordinal]:
                continue
            self.columns.put(ordinal, row)
            self.n_groups[ordinal] = row["n_groups"]
            self.quarantined_until[ordinal] = _seconds(row["quarantined_until"])
            (self._quarantined.add if row["quarantined_until"] else self._quarantined.discard)(ordinal)
        moved = [row["ordinal"] for row in change.rows if row["ordinal"] < len(self)]
        self._note(np.array(moved, np.int64), is_ability=False)
        self._follow(change.abilities)
        self.watermark = max(self.watermark, change.watermark)

    def _follow(self, abilities: list[dict[str, Any]]) -> None:
        """Move each problem's ability to its skill's; a skill that is newer here already stays."""
        for row in abilities:
            skill, n_groups = row["skill"], row["n_groups"]
            if n_groups < self.n_groups_of_skill.get(skill, 0):
                continue
            self.n_groups_of_skill[skill] = n_groups
            rows = self.rows_of_skill.get(skill, _NO_ROWS)
            self.columns.ability[rows] = row["level"]
            self._note(rows, is_ability=True)
        newest = max((row["index"] for row in abilities), default=0)
        if len(self) and newest > self.columns.now_index[0]:
            self.columns.now_index[:] = newest
            self.n_moves += self._moves.maxlen or 0  # every belief is wider now: tables are made anew
            self._moves.clear()


class Pools:
    """The pools of one process; a restart loads them again from the database."""

    def __init__(self, store: EstimateStore) -> None:
        self._store = store
        self._pools: dict[int, Pool] = {}
        self._locks: dict[int, asyncio.Lock] = {}
        self._pending: dict[int, list[Change]] = {}
        self._moving = threading.Lock()  # a pool is put in place on the event loop

    async def get(self, measurement_id: int, n_problems: int, state_version: int) -> Pool:
        """The pool of a measurement whose set holds `n_problems`.

        It is loaded on first use, and again after the set grew or the state of a problem changed.
        """
        async with self._locks.setdefault(measurement_id, asyncio.Lock()):
            pool = self._pools.get(measurement_id)
            if pool is None or len(pool) < n_problems or pool.state_version < state_version:
                await self._store.grow(measurement_id)
                pool = await self._loaded(measurement_id)
            return pool

    async def _loaded(self, measurement_id: int) -> Pool:
        # a change may commit while the rows are read: it is kept and applied after
        pending: list[Change] = []
        self._pending[measurement_id] = pending
        try:
            pool = Pool.of(await self._store.load(measurement_id, 0))
            with self._moving:
                for change in pending:
                    pool.apply(change)
                self._pools[measurement_id] = pool
        finally:
            del self._pending[measurement_id]
        return pool

    def committed(self, change: Change) -> None:
        """Take up a committed change, on the thread that committed it: the one that draws."""
        with self._moving:
            if change.measurement_id in self._pending:
                self._pending[change.measurement_id].append(change)
            if change.measurement_id in self._pools:
                self._pools[change.measurement_id].apply(change)


_NO_ROWS = np.empty(0, np.int64)


def _rows_of(skills: Sequence[str]) -> dict[str, IntArray]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, skill in enumerate(skills):
        rows[skill].append(row)
    return {skill: np.array(found, np.int64) for skill, found in rows.items()}


def _seconds(moment: dt.datetime | None) -> float:
    return 0.0 if moment is None else moment.timestamp()
