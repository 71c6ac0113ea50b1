"""Batches in the database: the draw is on disk before it is returned."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, func, literal, select, update

from app.db.engine import Database
from app.db.tables import batches
from app.db.transaction import reads, rows_as_dicts, writes
from app.errors import Conflict, Invalid, NotFound
from app.flow.batches.body import ARRAYS, COLUMNS, effective_state, unpacked
from app.flow.estimates.columns import FloatArray
from app.flow.rollouts.groups import Group
from app.flow.rollouts.observer import Observer
from paced.wire import BatchState, Stage


class BatchStore:
    """Every statement on batches."""

    def __init__(self, db: Database, observer: Observer) -> None:
        self.db = db
        self._observer = observer

    @reads
    def get(self, conn: Connection, batch_id: str) -> dict[str, Any]:
        """One batch; NotFound when there is none."""
        return _row(conn, batch_id)

    @reads
    def page(
        self,
        conn: Connection,
        curriculum_id: str,
        run_id: str | None,
        state: BatchState | None,
        after: int,
        limit: int,
    ) -> list[dict[str, Any]]:
        """Batches of a curriculum above a draw number, oldest first."""
        c = batches.c
        query = select(batches).where(c.curriculum_id == curriculum_id, c.seq > after).order_by(c.seq).limit(limit)
        if run_id is not None:
            query = query.where(c.run_id == run_id)
        if state is not None:
            query = query.where(c.state == state)
        return rows_as_dicts(conn.execute(query))

    @reads
    def newest(
        self, conn: Connection, curriculum_id: str, below: int | None, limit: int, run_id: str | None
    ) -> list[dict[str, Any]]:
        """Batches of a curriculum (and run) below a draw number, newest first, with pass rates alone of the arrays."""
        c = batches.c
        plain = [column for column in c if column.name not in COLUMNS or column.name == "pass_rates"]
        query = select(*plain).where(c.curriculum_id == curriculum_id).order_by(c.seq.desc()).limit(limit)
        if run_id is not None:
            query = query.where(c.run_id == run_id)
        return rows_as_dicts(conn.execute(query if below is None else query.where(c.seq < below)))

    @reads
    def holding(
        self, conn: Connection, curriculum_id: str, ordinal: int, limit: int
    ) -> tuple[list[dict[str, Any]], int]:
        """The curriculum's newest batches that hold a problem, with what each gave it; and its last draw number."""
        b = batches.c
        wanted = np.array([ordinal], COLUMNS["ordinals"]).tobytes()
        # bytes of two neighbours may look alike: what is found is read again by place
        place = (
            func.instr(b.ordinals, wanted)
            if conn.dialect.name == "sqlite"
            else func.position(literal(wanted).op("IN")(b.ordinals))
        )
        mine = b.curriculum_id == curriculum_id
        query = select(batches).where(mine, place > 0).order_by(b.seq.desc()).execution_options(yield_per=64)
        found: list[dict[str, Any]] = []
        for row in conn.execute(query).mappings():
            places = np.flatnonzero(unpacked(dict(row), "ordinals") == ordinal)
            if len(places):
                found.append(_held(dict(row), int(places[0])))
            if len(found) == limit:
                break
        last = conn.execute(select(func.max(b.seq)).where(mine)).scalar()
        return found, -1 if last is None else int(last)

    @reads
    def loss_weights(self, conn: Connection, run_id: str, limit: int) -> list[tuple[int, Stage, FloatArray]]:
        """(step, stage, loss weights) of the newest batches of a run, the newest first."""
        c = batches.c
        query = select(c.step, c.stage, c.loss_weights).where(c.run_id == run_id).order_by(c.step.desc()).limit(limit)
        rows = rows_as_dicts(conn.execute(query))
        return [(row["step"], Stage(row["stage"]), unpacked(row, "loss_weights")) for row in rows]

    @writes
    def acknowledge(
        self,
        conn: Connection,
        batch_id: str,
        measurement_id: int,
        groups: Sequence[Group],
        now: dt.datetime,
    ) -> bool:
        """Close a batch and count its outcomes; returns whether it was closed before."""
        row = _row(conn, batch_id, lock=True)
        state = effective_state(row, now)
        if state == BatchState.ACKNOWLEDGED:
            return True
        if state == BatchState.EXPIRED:
            raise Conflict(
                f"batch {batch_id} expired at {row['expires_at']:%Y-%m-%d %H:%M:%S} UTC and its problems went back; "
                "drop this step and draw again (raise the curriculum's batch_ttl_s if steps take longer)",
                code="batch_expired",
            )
        strangers = {group.problem_id for group in groups} - set(unpacked(row, "problem_ids").tolist())
        if strangers:
            raise Invalid(f"problems {sorted(strangers)[:10]} are not in batch {batch_id}", code="not_in_batch")
        if groups:
            self._observer.write(conn, measurement_id, groups, now)
        done = {"state": BatchState.ACKNOWLEDGED, "acknowledged_at": now}
        conn.execute(update(batches).where(batches.c.batch_id == batch_id).values(**done))
        return False


def _held(row: dict[str, Any], place: int) -> dict[str, Any]:
    """What a batch gave the problem at a place."""
    kept = ("batch_id", "seq", "step", "stage", "state", "run_id", "created_at", "expires_at")
    arrays = {name: column for name, column in ARRAYS.items() if name != "problem_id"}
    given = {name: float(unpacked(row, column)[place]) for name, column in arrays.items()}
    return {**{name: row[name] for name in kept}, **given}


def _row(conn: Connection, batch_id: str, *, lock: bool = False) -> dict[str, Any]:
    query = select(batches).where(batches.c.batch_id == batch_id)
    row = conn.execute(query.with_for_update() if lock else query).mappings().first()
    if row is None:
        raise NotFound(f"there is no batch {batch_id!r}")
    return dict(row)
