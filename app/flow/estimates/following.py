"""What other API processes wrote: their committed observations, read from PostgreSQL without missing one.

A sequence is no watermark: a transaction may commit after one that took a later number. So each look keeps the
snapshot that it was made under, and asks for the observations of transactions that are visible now and were not then.
"""

import asyncio
import time

import structlog
from sqlalchemy import Connection, select, text

from app.db.engine import Database
from app.db.tables import estimates
from app.db.transaction import reads, rows_in
from app.errors import AppError
from app.flow.estimates.pools import Pools
from app.flow.estimates.skills import abilities_of
from app.flow.estimates.store import Change

POLL_S = 0.2
log = structlog.get_logger()


class ChangeStore:
    """Reads what became visible between two looks."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @reads
    def since(self, conn: Connection, measurement_id: int, snapshot: str) -> tuple[str, Change | None]:
        """The snapshot of now, and the change since another; the rows may be newer still."""
        row = conn.execute(_SINCE, {"m": measurement_id, "old": snapshot}).one()
        if not row.problem_ids:
            return str(row.now), None
        e = estimates.c
        moved = rows_in(
            conn, select(estimates).where(e.measurement_id == measurement_id), e.problem_id, row.problem_ids
        )
        return str(row.now), Change(measurement_id, moved, abilities_of(conn, measurement_id), row.newest)


class Follower:
    """Keeps the pools of this process within a second of what all processes committed."""

    def __init__(self, store: ChangeStore, pools: Pools) -> None:
        self._store = store
        self._pools = pools
        self._snapshots: dict[int, str] = {}
        self._looked_at = time.monotonic()

    @property
    def lag_s(self) -> float:
        """Seconds since the last whole look."""
        return time.monotonic() - self._looked_at

    async def run(self) -> None:
        """Look again and again, until cancelled; a database that is away is waited for."""
        while True:
            try:
                await self.look()
            except AppError as error:
                log.warning("following", error=error.detail)
            await asyncio.sleep(POLL_S)

    async def look(self) -> None:
        """Take up what was committed since the last look."""
        for measurement_id, loaded_under in self._pools.loaded():
            old = self._snapshots.get(measurement_id, loaded_under)
            self._snapshots[measurement_id], change = await self._store.since(measurement_id, old)
            if change is not None:
                self._pools.committed(change)
        self._looked_at = time.monotonic()


_SINCE = text(
    """
    WITH seen AS MATERIALIZED (SELECT pg_current_snapshot() AS now, CAST(:old AS pg_snapshot) AS old),
    news AS MATERIALIZED (
        SELECT o.problem_id, o.observation_id
        FROM observations o, seen
        WHERE o.measurement_id = :m AND o.xact >= pg_snapshot_xmin(seen.old)::text::bigint
            AND o.xact < pg_snapshot_xmax(seen.now)::text::bigint -- else it was restored from another cluster
            AND NOT pg_visible_in_snapshot(o.xact::text::xid8, seen.old)
    )
    SELECT seen.now::text AS now, (SELECT array_agg(DISTINCT problem_id) FROM news) AS problem_ids,
        (SELECT max(observation_id) FROM news) AS newest
    FROM seen
    """
)
