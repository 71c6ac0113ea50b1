"""In how many batches each problem was: batches are only added, so each is read once and counted in memory."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import Connection, select

from app.db.engine import Database
from app.db.tables import batches, curricula
from app.db.transaction import reads
from app.flow.estimates.columns import IntArray

ORDINALS = "<i4"  # how a batch's row keeps them
MAX_MEASUREMENTS = 16
N_BATCHES = 2_000  # of them at a time


class ServedStore:
    """Reads what batches hold."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @reads
    def curricula(self, conn: Connection, measurement_id: int) -> list[str]:
        """Ids of a measurement's curricula."""
        c = curricula.c
        return list(conn.execute(select(c.curriculum_id).where(c.measurement_id == measurement_id)).scalars())

    @reads
    def since(self, conn: Connection, seen: Mapping[str, int]) -> list[tuple[str, int, bytes]]:
        """(curriculum, draw number, ordinals) of up to `N_BATCHES` batches of each after the one seen last."""
        b = batches.c
        found: list[tuple[str, int, bytes]] = []
        for curriculum_id, last in seen.items():
            query = select(b.curriculum_id, b.seq, b.ordinals)
            query = query.where(b.curriculum_id == curriculum_id, b.seq > last).order_by(b.seq).limit(N_BATCHES)
            found += [(row.curriculum_id, row.seq, row.ordinals) for row in conn.execute(query)]
        return found


@dataclass(slots=True)
class _Counts:
    last_seq: dict[str, int] = field(default_factory=dict)
    by_curriculum: dict[str, IntArray] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Served:
    """Counts of the measurements that were asked about lately."""

    def __init__(self, store: ServedStore) -> None:
        self._store = store
        self._counts: OrderedDict[int, _Counts] = OrderedDict()

    async def counts(self, measurement_id: int, n_problems: int, curriculum_id: str | None = None) -> IntArray:
        """Batches by ordinal, of one curriculum or of all that draw from the measurement; expired ones count."""
        kept = self._counts.setdefault(measurement_id, _Counts())
        self._counts.move_to_end(measurement_id)
        if len(self._counts) > MAX_MEASUREMENTS:
            self._counts.popitem(last=False)
        async with kept.lock:
            await self._follow(measurement_id, kept, n_problems)
            wanted = [curriculum_id] if curriculum_id else list(kept.by_curriculum)
            total = np.zeros(n_problems, np.int64)
            for name in wanted:
                total += kept.by_curriculum[name][:n_problems]
            return total

    async def _follow(self, measurement_id: int, kept: _Counts, n_problems: int) -> None:
        for curriculum_id in await self._store.curricula(measurement_id):
            kept.last_seq.setdefault(curriculum_id, -1)
            known = kept.by_curriculum.setdefault(curriculum_id, np.zeros(n_problems, np.int64))
            if len(known) < n_problems:
                kept.by_curriculum[curriculum_id] = np.pad(known, (0, n_problems - len(known)))
        while found := await self._store.since(kept.last_seq):
            for curriculum_id, seq, packed in found:
                ordinals = np.frombuffer(packed, ORDINALS)
                counts = kept.by_curriculum[curriculum_id]
                if (beyond := int(ordinals.max(initial=-1)) + 1) > len(counts):  # drawn from a set that grew meanwhile
                    counts = kept.by_curriculum[curriculum_id] = np.pad(counts, (0, beyond - len(counts)))
                counts[ordinals] += 1  # no problem stands twice in a batch
                kept.last_seq[curriculum_id] = seq
            if len(found) < N_BATCHES:
                return
