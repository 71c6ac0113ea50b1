"""Draws in the database: batches are on disk before they are returned."""

import datetime as dt
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Self

from sqlalchemy import CompoundSelect, Connection, Select, String, bindparam, func, insert, select, union_all, update

from app.db.engine import Database
from app.db.tables import batches, curricula, measurements, problem_sets, runs
from app.db.transaction import rows_as_dicts, writes
from app.errors import Conflict, Invalid, NotFound
from app.flow.batches.body import COLUMNS, effective_state, unpacked
from app.flow.batches.drawing import Draw
from app.flow.batches.law import Recent
from app.flow.curricula.rule import Rule
from app.flow.estimates.columns import IntArray
from app.flow.students.lines import newest_fork
from app.http.idempotency import Idempotency
from app.ids import new_id
from paced.wire import BatchState

Drawing = Callable[[], AbstractContextManager[Callable[[int, Recent, int], list[Draw]]]]
Row = dict[str, Any]


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


@dataclass(frozen=True, slots=True)
class _Past:
    """A batch that may keep its problems from the next."""

    seq: int
    is_open: bool
    ordinals: IntArray


class DrawStore:
    """The transaction of a draw."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @writes
    def draw(
        self,
        conn: Connection,
        made: Sequence[Row],
        identity: Idempotency,
        seen: Seen,
        rule: Rule,
        drawing: Drawing,
        replaces: str | None = None,
    ) -> list[Row]:
        """Draw and store batches, one after the other, or return those of this key.

        Draws of one curriculum wait for each other. What `drawing` gives is called with a draw's number, the open and
        recent batches, and how many draws may follow on them; it returns one or more. The first batch takes the step
        of the expired one that it `replaces`. Raises Stale when the curriculum or its set is not as `seen`, Conflict
        when nothing is eligible or the schedule is over; where that happens after some were drawn, those are all.
        """
        curriculum_id, run_id, now = (made[0][name] for name in ("curriculum_id", "run_id", "created_at"))
        head = _head(conn, made[0])
        if head["is_known"]:
            known = _known(conn, curriculum_id, [values["idempotency_key"] for values in made])
            identity.check(known[0]["request_hash"])
            return known
        if not seen.holds(head):
            raise Stale
        if run_id is not None:
            _check_run(run_id, head["run_curriculum_id"], curriculum_id)
        cooldown = rule.filters.cooldown_batches
        past = _past(conn, curriculum_id, head["last_seq"] + 1 - cooldown, now)
        step = head["last_seq" if run_id is None else "last_step"] + 1
        if replaces is not None:
            step = _step_given_up(conn, replaces, made[0])
        rows: list[Row] = []
        waiting: deque[Draw] = deque()
        with drawing() as draw:
            for place, values in enumerate(made):
                seq = head["last_seq"] + 1 + place
                try:
                    stage = rule.stage_at(step + place)
                    if not waiting:
                        count = min(len(made) - place, _n_alike(past, seq - cooldown))
                        waiting.extend(draw(seq, _recent(past, seq - cooldown), count))
                    drawn = waiting.popleft()
                    _check_not_empty(drawn)
                except Conflict:
                    if rows:
                        break
                    raise
                past.append(_Past(seq, True, drawn.ordinals))
                head["n_served"] += len(drawn.ordinals)
                columns = {"seq": seq, "step": step + place, "stage": stage, "n_served": head["n_served"]}
                rows.append({**values, **columns, **_draw_columns(drawn), "request_hash": identity.request_hash})
        conn.execute(_INSERT, rows)
        return [{**row, "acknowledged_at": None} for row in rows]


def new_batch(curriculum: Row, run_id: str | None, key: str | None, ttl_s: float, now: dt.datetime) -> Row:
    """Columns of a batch that are known before its draw."""
    return {
        "batch_id": new_id("bat"),
        "curriculum_id": curriculum["curriculum_id"],
        "version": curriculum["version"],
        "run_id": run_id,
        "mode": curriculum["rule"]["mode"],
        "seed": curriculum["seed"],
        "state": BatchState.OPEN,
        "idempotency_key": key,
        "created_at": now,
        "expires_at": now + dt.timedelta(seconds=ttl_s),
    }


def _head(conn: Connection, made: Row) -> Row:
    """What a draw must know of its curriculum, in one statement; on PostgreSQL the curriculum is locked before."""
    curriculum_id = made["curriculum_id"]
    if conn.dialect.name != "sqlite":
        c = curricula.c.curriculum_id
        conn.execute(select(c).where(c == curriculum_id).with_for_update())
    asked = {"curriculum": curriculum_id, "run": made["run_id"], "key": made["idempotency_key"]}
    found = conn.execute(_HEAD, asked).mappings().first()
    if found is None:
        raise NotFound(f"there is no curriculum {curriculum_id!r}; GET /v1/curricula lists them")
    return dict(found)


def _known(conn: Connection, curriculum_id: str, keys: Sequence[str]) -> list[Row]:
    c = batches.c
    query = select(batches).where(c.curriculum_id == curriculum_id, c.idempotency_key.in_(keys)).order_by(c.seq)
    return rows_as_dicts(conn.execute(query))


def _past(conn: Connection, curriculum_id: str, from_seq: int, now: dt.datetime) -> list[_Past]:
    """Open batches and those from a draw number on; open batches past their time are closed."""
    past, late = [], []
    for row in conn.execute(_PAST, {"curriculum": curriculum_id, "seq": from_seq}).mappings():
        if row["state"] == BatchState.OPEN and row["expires_at"] <= now:
            late.append(row["batch_id"])
        elif row["state"] != BatchState.EXPIRED:
            past.append(_Past(row["seq"], row["state"] == BatchState.OPEN, unpacked(dict(row), "ordinals")))
    if late:
        is_open = batches.c.state == BatchState.OPEN  # one may be acknowledged meanwhile
        conn.execute(update(batches).where(batches.c.batch_id.in_(late), is_open).values(state=BatchState.EXPIRED))
    return past


def _recent(past: Sequence[_Past], from_seq: int) -> Recent:
    return Recent(
        in_flight=[batch.ordinals for batch in past if batch.is_open],
        cooling=[batch.ordinals for batch in past if batch.seq >= from_seq],
    )


def _n_alike(past: Sequence[_Past], from_seq: int) -> int:
    """How many draws follow each other before a batch that is over stops cooling down."""
    return min((batch.seq - from_seq + 1 for batch in past if not batch.is_open), default=sys.maxsize)


def _check_run(run_id: str, theirs: str | None, curriculum_id: str) -> None:
    if theirs is None:
        raise NotFound(f"there is no run {run_id!r}; POST /v1/runs makes one")
    if theirs != curriculum_id:
        raise Invalid(f"run {run_id} belongs to curriculum {theirs}", code="run_of_other_curriculum")


def _step_given_up(conn: Connection, batch_id: str, made: Row) -> int:
    """The step of a batch of the run that expired unused. Raises Invalid and Conflict where it is none."""
    c = batches.c
    if made["run_id"] is None:
        raise Invalid("a step belongs to a run: give the `run_id` of the batch that this one `replaces`", code="no_run")
    query = select(c.step, c.state, c.expires_at, c.run_id, c.curriculum_id).where(c.batch_id == batch_id)
    found = rows_as_dicts(conn.execute(query))
    if not found or any(found[0][name] != made[name] for name in ("run_id", "curriculum_id")):
        raise Invalid(
            f"batch {batch_id} is none of run {made['run_id']} on this curriculum; `replaces` names one that is",
            code="replaces_other_run",
        )
    step, state = int(found[0]["step"]), effective_state(found[0], made["created_at"])
    if state != BatchState.EXPIRED:
        raise Conflict(
            f"batch {batch_id} is {state} and keeps its step; only one that expired unused can be replaced",
            code="batch_not_expired",
        )
    same = c.curriculum_id == made["curriculum_id"], c.run_id == made["run_id"], c.step == step
    newer = conn.execute(select(c.batch_id).where(*same, c.state != BatchState.EXPIRED)).scalar()
    if newer is not None:
        raise Conflict(f"batch {newer} has taken the step of batch {batch_id} already", code="batch_replaced")
    return step


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


def _draw_columns(drawn: Draw) -> Row:
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
    known = b.curriculum_id == mine, b.idempotency_key == bindparam("key", type_=String)
    last = func.coalesce(func.max(b.seq), -1)
    newest = select(b.n_served).where(b.curriculum_id == mine).order_by(b.seq.desc()).limit(1)
    return (
        select(
            c.version,
            m.holdout_share,
            s.n_problems,
            s.state_version,
            newest_fork(m.student),
            select(last).where(b.curriculum_id == mine).scalar_subquery().label("last_seq"),
            select(func.coalesce(func.max(b.step), -1)).where(b.run_id == run).scalar_subquery().label("last_step"),
            func.coalesce(newest.scalar_subquery(), 0).label("n_served"),
            select(r.curriculum_id).where(r.run_id == run).scalar_subquery().label("run_curriculum_id"),
            select(b.batch_id).where(*known).exists().label("is_known"),
        )
        .join(measurements, m.measurement_id == c.measurement_id)
        .join(problem_sets, s.name == m.problem_set)
        .where(c.curriculum_id == mine)
    )


def _past_query() -> CompoundSelect[Any]:
    c = batches.c
    mine = select(c.batch_id, c.ordinals, c.state, c.seq, c.expires_at).where(
        c.curriculum_id == bindparam("curriculum")
    )
    is_open = c.state == BatchState.OPEN
    # two selects, each by an index: of one with OR, SQLite would read every batch of the curriculum
    return union_all(mine.where(is_open), mine.where(c.seq >= bindparam("seq"), ~is_open))


_HEAD = _head_query()
_INSERT = insert(batches)
_PAST = _past_query()
