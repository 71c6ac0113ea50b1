"""Who measures, what waits and what is slow, read from the database."""

import datetime as dt
import functools
import operator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from app.db.engine import Database
from app.db.tables import activity, checkpoints, estimates, leases, measurements, observations, problems, rollouts
from app.db.transaction import reads, rows_as_dicts
from app.flow.rollouts import demand
from app.flow.rollouts.activity import COUNTED, MINUTE, minute_of
from app.flow.rollouts.measurements import NEVER, is_due, is_held_out, measurement_row
from app.flow.rollouts.store import profile_body
from app.flow.students.store import latest_checkpoint
from app.ids import numbered
from paced.wire import LeaseState, Workers

HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
N_NEWEST = 1_000  # groups
N_SLOWEST = 10
N_ACTIVE = 50  # measurements
NO_WORK = {"is_wanted": False, "oldest_checkpoint_index": None, "oldest_measured_at": None}
SUMS: dict[str, Any] = {
    "n_groups": activity.c.n_groups,
    "n_answers": functools.reduce(operator.add, (activity.c[name] for name in COUNTED.values())),
    "n_tokens": activity.c.n_tokens,
}
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Active:
    """A measurement on which someone worked, or a checkpoint was registered, within a day."""

    measurement_id: str
    student: str
    problem_set: str


@dataclass(frozen=True, slots=True)
class Pace:
    """How a measurement is measured now: leases that are held, and groups a minute over the last five."""

    n_live: int
    n_late: int
    groups_per_min: float
    last_seen_at: dt.datetime | None


class WorkerStore:
    """Every statement on workers."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @reads
    def get(self, conn: Connection, measurement_id: int, now: dt.datetime, *, is_timed: bool = True) -> Workers:
        """All of it, in one snapshot; without the times of graders where those are not asked for."""
        measurement = measurement_row(conn, measurement_id)
        workers = _workers(conn, measurement_id, now)
        newest = _newest_times(conn, measurement) if is_timed else []
        return Workers.model_validate(
            {
                "measurement_id": numbered("mea", measurement_id),
                "student": measurement["student"],
                "at": now,
                **{name: sum(row[name] for row in workers) for name in ("n_live", "n_late", "n_lost")},
                "workers": workers,
                "verdicts": _verdicts(conn, measurement_id, now),
                "minutes": _minutes(conn, measurement_id, now),
                "queue": _queue(conn, measurement, now),
                "graders": _graders(newest),
                "slowest": _slowest(newest),
            }
        )

    @reads
    def pace(self, conn: Connection, measurement_id: int, now: dt.datetime) -> Pace:
        """The little of it that an overview shows."""
        workers = _workers(conn, measurement_id, now)
        minutes = (now - minute_of(now) + 4 * MINUTE) / MINUTE
        return Pace(
            n_live=sum(row["n_live"] for row in workers),
            n_late=sum(row["n_late"] for row in workers),
            groups_per_min=sum(row["n_groups_5m"] for row in workers) / minutes,
            last_seen_at=max((row["last_seen_at"] for row in workers), default=None),
        )

    @reads
    def active(self, conn: Connection, now: dt.datetime) -> list[Active]:
        """Measurements that are in use, the newest first."""
        m, a, c = measurements.c, activity.c, checkpoints.c
        worked = select(1).where(a.measurement_id == m.measurement_id, a.minute >= now - DAY).exists()
        renewed = select(1).where(c.student == m.student, c.created_at >= now - DAY).exists()
        query = (
            select(m.measurement_id, m.student, m.problem_set)
            .where(or_(worked, renewed))
            .order_by(m.measurement_id.desc())
            .limit(N_ACTIVE)
        )
        rows = conn.execute(query)
        return [Active(numbered("mea", row.measurement_id), row.student, row.problem_set) for row in rows]


def _workers(conn: Connection, measurement_id: int, now: dt.datetime) -> list[Row]:
    """Workers by name, those seen last first."""
    a = activity.c
    recent, hour = minute_of(now) - 4 * MINUTE, minute_of(now) - HOUR + MINUTE
    idle = {f"{name}_{window}": 0 for name in SUMS for window in ("5m", "1h")}
    mine = a.measurement_id == measurement_id
    seen = select(a.worker, func.max(a.minute).label("last_seen_at")).where(mine, a.minute >= now - DAY)  # by its key
    found = {row["worker"]: {**row, **idle} for row in rows_as_dicts(conn.execute(seen.group_by(a.worker)))}
    query = (
        select(
            a.worker,
            func.max(a.last_at).label("last_seen_at"),
            *(_since(term, recent).label(f"{name}_5m") for name, term in SUMS.items()),
            *(func.sum(term).label(f"{name}_1h") for name, term in SUMS.items()),
        )
        .where(mine, a.minute >= hour)
        .group_by(a.worker)
    )
    found |= {row["worker"]: row for row in rows_as_dicts(conn.execute(query))}
    none: Row = {"n_live": 0, "n_late": 0, "n_lost": 0}
    for lease in _leases(conn, measurement_id, now):
        row = found.setdefault(lease["worker"], {"worker": lease["worker"], "last_seen_at": None, **idle})
        row.update({name: row.get(name, 0) + lease[name] for name in none})
        row["last_seen_at"] = max(filter(None, (row["last_seen_at"], lease["last_claim_at"])))
    seconds = (now - recent).total_seconds()
    rows = [{**none, **row, "tokens_per_s": row["n_tokens_5m"] / seconds} for row in found.values()]
    return sorted(rows, key=lambda row: row["last_seen_at"], reverse=True)


def _since(term: Any, first: dt.datetime) -> Any:
    return func.coalesce(func.sum(term).filter(activity.c.minute >= first), 0)


def _leases(conn: Connection, measurement_id: int, now: dt.datetime) -> list[Row]:
    """Counts by worker: active ones, and those lost within the hour."""
    c = leases.c
    is_active = c.state == LeaseState.ACTIVE
    is_lost = and_(c.state == LeaseState.EXPIRED, c.expires_at >= now - HOUR)

    def n_where(condition: ColumnElement[bool], name: str) -> Any:
        return func.count().filter(condition).label(name)

    rows = []
    for chosen in (is_active, is_lost):  # one after the other, each by the index
        query = (
            select(
                c.worker,
                n_where(and_(is_active, c.expires_at > now), "n_live"),
                n_where(and_(is_active, c.expires_at <= now), "n_late"),
                n_where(is_lost, "n_lost"),
                func.max(c.created_at).label("last_claim_at"),
            )
            .where(c.measurement_id == measurement_id, chosen)
            .group_by(c.worker)
        )
        rows += rows_as_dicts(conn.execute(query))
    return rows


def _verdicts(conn: Connection, measurement_id: int, now: dt.datetime) -> dict[str, int]:
    a = activity.c
    sums = [func.coalesce(func.sum(a[name]), 0).label(verdict.value) for verdict, name in COUNTED.items()]
    query = select(*sums).where(a.measurement_id == measurement_id, a.minute > now - HOUR)
    (row,) = rows_as_dicts(conn.execute(query))
    return {verdict: int(n) for verdict, n in row.items() if n}


def _minutes(conn: Connection, measurement_id: int, now: dt.datetime) -> list[Row]:
    a = activity.c
    query = (
        select(a.minute, *(func.sum(term).label(name) for name, term in SUMS.items()))
        .where(a.measurement_id == measurement_id, a.minute > now - HOUR)
        .group_by(a.minute)
        .order_by(a.minute)
    )
    return rows_as_dicts(conn.execute(query))


def _queue(conn: Connection, measurement: Row, now: dt.datetime) -> Row:
    checkpoint = latest_checkpoint(conn, measurement["student"])
    if checkpoint is None:
        return {**NO_WORK, "checkpoint_index": None, "waiting_since": None}
    place = {"checkpoint_index": checkpoint.index, "waiting_since": checkpoint.created_at}
    e = estimates.c
    wanted = is_due(checkpoint.index, now)
    if not demand.may_remeasure(conn, measurement):
        wanted &= or_(e.checkpoint_index == NEVER, is_held_out(measurement["holdout_share"]))
    query = (
        select(e.checkpoint_index, e.measured_at)
        .where(e.measurement_id == measurement["measurement_id"], wanted)
        .order_by(e.checkpoint_index, e.ordinal)
        .limit(1)
    )
    oldest = conn.execute(query).first()
    if oldest is None:
        return {**NO_WORK, **place}
    index = None if oldest.checkpoint_index == NEVER else oldest.checkpoint_index
    return {**place, "is_wanted": True, "oldest_checkpoint_index": index, "oldest_measured_at": oldest.measured_at}


def _newest_times(conn: Connection, measurement: Row) -> list[Row]:
    """Grading times of the newest groups of the newest checkpoint that was measured."""
    o, r, p = observations.c, rollouts.c, problems.c
    mine = o.measurement_id == measurement["measurement_id"]
    newest = select(func.max(o.checkpoint_index)).where(mine).scalar_subquery()
    groups = (
        select(o.observation_id, o.problem_id)
        .where(mine, o.checkpoint_index == newest)
        .order_by(o.observation_id.desc())
        .limit(N_NEWEST)
        .subquery()
    )
    query = (
        select(groups.c.observation_id, r.position, p.problem_id, p.ordinal, p.grader, r.verdict, r.grading_s)
        .join(rollouts, r.observation_id == groups.c.observation_id)
        .join(problems, p.problem_id == groups.c.problem_id)
        .where(r.grading_s.is_not(None))
    )
    grader = profile_body(conn, measurement["profile_id"])["grader"]
    return [{**row, "grader": grader or row["grader"]} for row in rows_as_dicts(conn.execute(query))]


def _slowest(newest: list[Row]) -> list[Row]:
    """The slowest answer of each group, of the slowest groups."""
    by_group: dict[int, Row] = {}
    for row in sorted(newest, key=lambda row: (-row["grading_s"], row["observation_id"])):
        by_group.setdefault(row["observation_id"], row)
    return list(by_group.values())[:N_SLOWEST]


def _graders(newest: list[Row]) -> list[Row]:
    """Mean and largest time by grader, the slowest first."""
    times: dict[str, list[float]] = {}
    for row in newest:
        times.setdefault(row["grader"], []).append(row["grading_s"])
    found = [
        {"grader": grader, "n_answers": len(taken), "mean_s": sum(taken) / len(taken), "max_s": max(taken)}
        for grader, taken in times.items()
    ]
    return sorted(found, key=lambda row: -row["mean_s"])
