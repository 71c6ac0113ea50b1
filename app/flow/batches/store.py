"""Batches in the database: the draw is on disk before it is returned."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import orjson
from sqlalchemy import Connection, Select, String, bindparam, func, insert, select, update

from app.db.engine import Database
from app.db.tables import batches, curricula, measurements, problem_sets, problems, runs
from app.db.transaction import reads, rows_as_dicts, rows_in, writes
from app.errors import Conflict, Invalid, NotFound
from app.flow.batches.body import COLUMNS, effective_state, unpacked
from app.flow.batches.drawing import Draw
from app.flow.batches.law import Recent
from app.flow.curricula.rule import Rule
from app.flow.rollouts.groups import Group
from app.flow.rollouts.observer import Observer
from app.flow.students.lines import newest_fork
from app.http.idempotency import Idempotency
from app.ids import new_id
from paced.wire import BatchState

Compose = Callable[[int, Recent], Draw]


class Stale(Exception):
    """What the caller planned from has changed since: plan anew."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a draw was planned from; `may_grow` accepts a set that has grown since, whose rest the next plan has."""

    version: int
    holdout_share: float
    n_problems: int
    state_version: int
    fork_index: int
    may_grow: bool = False

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a curriculum's row."""
        return cls(*(row[name] for name in cls.__slots__ if name != "may_grow"))

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether the plan still does."""
        now = replace(type(self).of(row), may_grow=self.may_grow)
        return now == self or (self.may_grow and replace(now, n_problems=self.n_problems) == self)


class BatchStore:
    """Every statement on batches."""

    def __init__(self, db: Database, observer: Observer) -> None:
        self.db = db
        self._observer = observer

    @writes
    def draw(
        self,
        conn: Connection,
        values: dict[str, Any],
        identity: Idempotency,
        seen: Seen,
        rule: Rule,
        compose: Compose,
    ) -> dict[str, Any]:
        """Draw and store one batch, or return the one of this key; draws of one curriculum wait for each other.

        `compose` gets the draw's number and the rows of open and recent batches. Raises Stale when the curriculum or
        its set is not as `seen`, Conflict when nothing is eligible or the schedule is over.
        """
        curriculum_id, run_id, now = values["curriculum_id"], values["run_id"], values["created_at"]
        head = _head(conn, curriculum_id, run_id, identity.key)
        if head["known_id"] is not None:
            known = _row(conn, head["known_id"])
            identity.check(known["request_hash"])
            return known
        if not seen.holds(head):
            raise Stale
        if run_id is not None:
            _check_run(run_id, head["run_curriculum_id"], curriculum_id)
        seq = head["last_seq"] + 1
        step = seq if run_id is None else head["last_step"] + 1
        stage = rule.stage_at(step)
        drawn = compose(seq, _recent(conn, curriculum_id, seq - rule.filters.cooldown_batches, now))
        _check_not_empty(drawn)
        row = {**values, "seq": seq, "step": step, "stage": stage, **_draw_columns(drawn)}
        row["n_served"] = head["n_served"] + row["size"]
        row |= {"idempotency_key": identity.key, "request_hash": identity.request_hash, "state": BatchState.OPEN}
        conn.execute(_INSERT, row)
        return {**row, "acknowledged_at": None}

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
        strangers = {group.problem_id for group in groups} - set(unpacked(row, "problem_ids").tolist())
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


def _head(conn: Connection, curriculum_id: str, run_id: str | None, key: str | None) -> dict[str, Any]:
    """What a draw must know of its curriculum, in one statement; on PostgreSQL the curriculum is locked before."""
    if conn.dialect.name != "sqlite":
        c = curricula.c.curriculum_id
        conn.execute(select(c).where(c == curriculum_id).with_for_update())
    found = conn.execute(_HEAD, {"curriculum": curriculum_id, "run": run_id, "key": key}).mappings().first()
    if found is None:
        raise NotFound(f"there is no curriculum {curriculum_id!r}; GET /v1/curricula lists them")
    return dict(found)


def _recent(conn: Connection, curriculum_id: str, from_seq: int, now: dt.datetime) -> Recent:
    """Rows of open batches and of those from a draw number on; open batches past their time are closed."""
    is_open, cooling, late = [_NO_ROWS], [_NO_ROWS], []
    for row in conn.execute(_RECENT, {"curriculum": curriculum_id, "seq": from_seq}).mappings():
        ordinals = unpacked(dict(row), "ordinals")
        is_late = row["state"] == BatchState.OPEN and row["expires_at"] <= now
        if is_late:
            late.append(row["batch_id"])
        elif row["state"] == BatchState.OPEN:
            is_open.append(ordinals)
        if row["seq"] >= from_seq and not (is_late or row["state"] == BatchState.EXPIRED):
            cooling.append(ordinals)
    if late:
        conn.execute(update(batches).where(batches.c.batch_id.in_(late)).values(state=BatchState.EXPIRED))
    return Recent(np.concatenate(is_open), np.concatenate(cooling))


def _check_run(run_id: str, theirs: str | None, curriculum_id: str) -> None:
    if theirs is None:
        raise NotFound(f"there is no run {run_id!r}; POST /v1/runs makes one")
    if theirs != curriculum_id:
        raise Invalid(f"run {run_id} belongs to curriculum {theirs}", code="run_of_other_curriculum")


def _check_not_empty(drawn: Draw) -> None:
    if len(drawn.ordinals) == 0 and drawn.shortfall is not None:
        short = drawn.shortfall
        raise Conflict(
            f"none of the {short.n_problems} problems can be drawn: {short.n_flagged} are flagged, {short.n_holdout} "
            f"held out, {short.n_quarantined} in quarantine, {short.n_in_flight} in open batches, {short.n_cooling} "
            f"cool down, {short.n_unmeasured} not measured yet, {short.n_filtered} outside the filters, "
            f"{short.n_zero_weight} of weight 0 (always right or always wrong)",
            code="no_eligible_problems",
            retry_after_s=5.0,
            shortfall=short.model_dump(),
        )


def _draw_columns(drawn: Draw) -> dict[str, Any]:
    arrays = {name: getattr(drawn, name).astype(dtype).tobytes() for name, dtype in COLUMNS.items()}
    return {
        **arrays,
        "size": len(drawn.ordinals),
        "watermark": drawn.watermark,
        "n_eligible": drawn.n_eligible,
        "n_hard_filter": drawn.n_hard_filter,
        "shortfall": None if drawn.shortfall is None else drawn.shortfall.model_dump(),
    }


def _head_query() -> Select[Any]:
    b, c, m, r, s = batches.c, curricula.c, measurements.c, runs.c, problem_sets.c
    mine, run = bindparam("curriculum", type_=String), bindparam("run", type_=String)
    last = func.coalesce(func.max(b.seq), -1)
    return (
        select(
            c.version,
            m.holdout_share,
            s.n_problems,
            s.state_version,
            newest_fork(m.student),
            select(last).where(b.curriculum_id == mine).scalar_subquery().label("last_seq"),
            select(func.coalesce(func.max(b.step), -1)).where(b.run_id == run).scalar_subquery().label("last_step"),
            select(func.coalesce(func.max(b.n_served), 0))
            .where(b.curriculum_id == mine)
            .scalar_subquery()
            .label("n_served"),
            select(r.curriculum_id).where(r.run_id == run).scalar_subquery().label("run_curriculum_id"),
            select(b.batch_id)
            .where(b.curriculum_id == mine, b.idempotency_key == bindparam("key", type_=String))
            .scalar_subquery()
            .label("known_id"),
        )
        .join(measurements, m.measurement_id == c.measurement_id)
        .join(problem_sets, s.name == m.problem_set)
        .where(c.curriculum_id == mine)
    )


_NO_ROWS = np.empty(0, np.int32)
_HEAD = _head_query()
_INSERT = insert(batches)
_RECENT = select(batches.c.batch_id, batches.c.ordinals, batches.c.state, batches.c.seq, batches.c.expires_at).where(
    batches.c.curriculum_id == bindparam("curriculum"),
    (batches.c.state == BatchState.OPEN) | (batches.c.seq >= bindparam("seq")),
)
