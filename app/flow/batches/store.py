"""Batches in the database: the draw is on disk before it is returned."""

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson
from sqlalchemy import Connection, func, insert, select, update

from app.db.engine import Database
from app.db.tables import batches, curricula, problems, runs
from app.db.transaction import reads, rows_as_dicts, rows_in, writes
from app.errors import Conflict, Invalid, NotFound
from app.flow.batches.body import effective_state, unpacked
from app.flow.batches.drawing import Draw
from app.flow.estimates.columns import IntArray
from app.flow.rollouts.groups import Group
from app.flow.rollouts.observer import Observer
from app.http.idempotency import Idempotency
from app.ids import new_id
from paced.wire import BatchState, Stage

Compose = Callable[[int, IntArray], Draw]
ARRAY_TYPES = {
    "ordinals": "<i8",
    "problem_ids": "<i8",
    "pass_rates": "<f8",
    "weights": "<f8",
    "draw_probabilities": "<f8",
    "loss_weights": "<f8",
}


class BatchStore:
    """Every statement on batches."""

    def __init__(self, db: Database, observer: Observer) -> None:
        self.db = db
        self._observer = observer

    @reads
    def of_key(self, conn: Connection, curriculum_id: str, identity: Idempotency) -> dict[str, Any] | None:
        """The batch that an Idempotency-Key stands for."""
        return _of_key(conn, curriculum_id, identity)

    @writes
    def draw(
        self,
        conn: Connection,
        values: dict[str, Any],
        identity: Idempotency,
        stage_at: Callable[[int], Stage],
        compose: Compose,
    ) -> dict[str, Any]:
        """Draw and store one batch; draws of one curriculum wait for each other.

        `compose` gets the draw's number and the ordinals in open batches. Raises Conflict when nothing is
        eligible or the schedule is over.
        """
        curriculum_id, now = values["curriculum_id"], values["created_at"]
        lock = select(curricula.c.curriculum_id).where(curricula.c.curriculum_id == curriculum_id)
        conn.execute(lock.with_for_update())
        known = _of_key(conn, curriculum_id, identity)
        if known is not None:
            return known
        _expire(conn, curriculum_id, now)
        seq = _count(conn, batches.c.curriculum_id == curriculum_id)
        step = seq
        if values["run_id"] is not None:
            _check_run(conn, values["run_id"], curriculum_id)
            step = _count(conn, batches.c.run_id == values["run_id"])
        stage = stage_at(step)
        drawn = compose(seq, _in_flight(conn, curriculum_id))
        _check_not_empty(drawn)
        row = {**values, "seq": seq, "step": step, "stage": stage, **_draw_columns(drawn)}
        identified = {"idempotency_key": identity.key, "request_hash": identity.request_hash}
        conn.execute(insert(batches).values(**row, **identified, state=BatchState.OPEN))
        return {**row, **identified, "state": BatchState.OPEN, "acknowledged_at": None}

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
    def problems(self, conn: Connection, problem_ids: list[int]) -> list[dict[str, Any]]:
        """Texts of problems, in the order asked for."""
        c = problems.c
        names = ("problem_id", "prompt", "answer", "grader", "solution", "tags")
        query = select(*(c[name] for name in names))
        by_id = {row["problem_id"]: row for row in rows_in(conn, query, c.problem_id, problem_ids)}
        found = [by_id[problem_id] for problem_id in problem_ids]
        return [{**row, "prompt": orjson.loads(row["prompt"])} for row in found]

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
        strangers = {group.problem_id for group in groups} - set(unpacked(row["problem_ids"]).tolist())
        if strangers:
            raise Invalid(f"problems {sorted(strangers)[:10]} are not in batch {batch_id}", code="not_in_batch")
        if groups:
            self._observer.write(conn, measurement_id, groups, now)
        done = {"state": BatchState.ACKNOWLEDGED, "acknowledged_at": now}
        conn.execute(update(batches).where(batches.c.batch_id == batch_id).values(**done))
        return False


def new_batch(
    curriculum: dict[str, Any], run_id: str | None, size: int, ttl_s: float, now: dt.datetime
) -> dict[str, Any]:
    """Columns of a batch that are known before its draw."""
    return {
        "batch_id": new_id("bat"),
        "curriculum_id": curriculum["curriculum_id"],
        "version": curriculum["version"],
        "run_id": run_id,
        "mode": curriculum["rule"]["mode"],
        "seed": curriculum["seed"],
        "size": size,
        "created_at": now,
        "expires_at": now + dt.timedelta(seconds=ttl_s),
    }


def _row(conn: Connection, batch_id: str, *, lock: bool = False) -> dict[str, Any]:
    query = select(batches).where(batches.c.batch_id == batch_id)
    row = conn.execute(query.with_for_update() if lock else query).mappings().first()
    if row is None:
        raise NotFound(f"there is no batch {batch_id!r}")
    return dict(row)


def _of_key(conn: Connection, curriculum_id: str, identity: Idempotency) -> dict[str, Any] | None:
    if identity.key is None:
        return None
    c = batches.c
    query = select(batches).where(c.curriculum_id == curriculum_id, c.idempotency_key == identity.key)
    row = conn.execute(query).mappings().first()
    if row is None:
        return None
    identity.check(row["request_hash"])
    return dict(row)


def _expire(conn: Connection, curriculum_id: str, now: dt.datetime) -> None:
    c = batches.c
    late = (c.curriculum_id == curriculum_id) & (c.state == BatchState.OPEN) & (c.expires_at <= now)
    conn.execute(update(batches).where(late).values(state=BatchState.EXPIRED))


def _count(conn: Connection, condition: Any) -> int:
    return int((conn.execute(select(func.count()).select_from(batches).where(condition))).scalar_one())


def _in_flight(conn: Connection, curriculum_id: str) -> IntArray:
    c = batches.c
    query = select(c.ordinals).where(c.curriculum_id == curriculum_id, c.state == BatchState.OPEN)
    blobs = [unpacked(row.ordinals) for row in conn.execute(query)]
    return np.concatenate(blobs) if blobs else np.empty(0, np.int64)


def _check_run(conn: Connection, run_id: str, curriculum_id: str) -> None:
    row = conn.execute(select(runs.c.curriculum_id).where(runs.c.run_id == run_id)).first()
    if row is None:
        raise NotFound(f"there is no run {run_id!r}; POST /v1/runs makes one")
    if row.curriculum_id != curriculum_id:
        raise Invalid(f"run {run_id} belongs to curriculum {row.curriculum_id}", code="run_of_other_curriculum")


def _check_not_empty(drawn: Draw) -> None:
    if len(drawn.ordinals) == 0 and drawn.shortfall is not None:
        short = drawn.shortfall
        raise Conflict(
            f"none of the {short.n_problems} problems can be drawn: {short.n_flagged} are flagged, {short.n_holdout} "
            f"held out, {short.n_quarantined} in quarantine, {short.n_in_flight} in open batches, "
            f"{short.n_unmeasured} not measured yet, {short.n_zero_weight} of weight 0 (always right or always wrong)",
            code="no_eligible_problems",
            retry_after_s=5.0,
            shortfall=short.model_dump(),
        )


def _draw_columns(drawn: Draw) -> dict[str, Any]:
    arrays = {name: getattr(drawn, name).astype(dtype).tobytes() for name, dtype in ARRAY_TYPES.items()}
    return {
        **arrays,
        "size": len(drawn.ordinals),
        "watermark": drawn.watermark,
        "n_eligible": drawn.n_eligible,
        "n_hard_filter": drawn.n_hard_filter,
        "shortfall": None if drawn.shortfall is None else drawn.shortfall.model_dump(),
    }
