"""Measurements in the database: whose pass rates are kept, and how far the measuring is."""

import datetime as dt
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, and_, func, insert, literal, or_, select, true, update

from app.db.engine import Database
from app.db.tables import estimates, measurements, problem_sets, problems, profiles, students
from app.db.transaction import reads, rows_as_dicts, writes
from app.errors import Conflict, NotFound
from app.flow.rollouts import demand
from app.flow.rollouts.groups import holdout_threshold
from app.flow.students.store import latest_checkpoint
from app.ids import number_of, numbered
from paced.wire import Measurement, MeasurementCreate, ProblemState

NEVER = -1  # checkpoint_index of a problem that was not measured yet


@dataclass(frozen=True, slots=True)
class MeasurementName:
    """What a measurement is of, without its progress."""

    measurement_id: str
    student: str
    problem_set: str
    profile_id: str
    n_rollouts: int
    holdout_share: float
    created_at: dt.datetime


class MeasurementStore:
    """Every statement on measurements."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @writes
    def create(self, conn: Connection, body: MeasurementCreate, holdout_share: float, now: dt.datetime) -> int:
        """Store a measurement, or return the one there is, its hold-out share raised to the one given."""
        _check_parts(conn, body)
        c = measurements.c
        same = and_(c.student == body.student, c.problem_set == body.problem_set, c.profile_id == body.profile_id)
        row = conn.execute(select(measurements).where(same).with_for_update()).mappings().first()
        if row is None:
            values = {**body.model_dump(), "holdout_share": holdout_share, "created_at": now}
            values |= {"n_problems": 0, "state_version": 0, "n_remeasured": 0}
            values["samples_per_measurement"] = body.samples_per_measurement or 0.0
            result = conn.execute(insert(measurements).values(**values).returning(c.measurement_id))
            measurement_id = int(result.scalar_one())
        else:
            _check_same(row["n_rollouts"], body)
            measurement_id = int(row["measurement_id"])
            share = max(row["holdout_share"], holdout_share)
            changed = {"holdout_share": share}
            if body.samples_per_measurement is not None:
                changed["samples_per_measurement"] = body.samples_per_measurement
            conn.execute(update(measurements).where(same).values(**changed))
        sync_rows(conn, measurement_id)
        return measurement_id

    @reads
    def get(self, conn: Connection, measurement_id: int, now: dt.datetime) -> Measurement:
        """One measurement with its progress."""
        return _progress(conn, measurement_row(conn, measurement_id), now)

    @reads
    def page(
        self, conn: Connection, student: str | None, after: int, limit: int, now: dt.datetime
    ) -> list[Measurement]:
        """Measurements, of one student or of all, oldest first."""
        c = measurements.c
        query = select(measurements).where(c.measurement_id > after).order_by(c.measurement_id).limit(limit)
        if student is not None:
            query = query.where(c.student == student)
        rows = rows_as_dicts(conn.execute(query))
        return [_progress(conn, row, now) for row in rows]

    @reads
    def names(self, conn: Connection) -> list[MeasurementName]:
        """Every measurement, oldest first."""
        columns = [measurements.c[field.name] for field in fields(MeasurementName)]
        found = rows_as_dicts(conn.execute(select(*columns).order_by(measurements.c.measurement_id)))
        return [MeasurementName(**{**row, "measurement_id": numbered("mea", row["measurement_id"])}) for row in found]

    @reads
    def numbers_of(self, conn: Connection, student: str) -> list[int]:
        """Row numbers of a student's measurements, oldest first."""
        c = measurements.c
        query = select(c.measurement_id).where(c.student == student).order_by(c.measurement_id)
        return [row.measurement_id for row in conn.execute(query)]


def measurement_row(conn: Connection, measurement_id: int) -> dict[str, Any]:
    """The bare row; NotFound when there is none."""
    query = select(measurements).where(measurements.c.measurement_id == measurement_id)
    row = conn.execute(query).mappings().first()
    if row is None:
        raise NotFound(f"there is no measurement {numbered('mea', measurement_id)!r}")
    return dict(row)


def sync_rows(conn: Connection, measurement_id: int) -> None:
    """Make estimate rows for problems imported since, and follow problems whose state changed.

    Ordinals are dense, so the rest is what is missing.
    """
    m, s = measurements.c, problem_sets.c
    query = (
        select(
            m.problem_set,
            m.n_problems,
            m.state_version,
            s.n_problems.label("n_total"),
            s.state_version.label("set_version"),
        )
        .join(problem_sets, s.name == m.problem_set)
        .where(m.measurement_id == measurement_id)
        .with_for_update(of=measurements)
    )
    row = conn.execute(query).one()
    # on PostgreSQL the set's values may be older than the locked row, whose other writer may have gone on further
    if row.set_version > row.state_version:
        _sync_states(conn, measurement_id, row.problem_set, row.state_version, row.set_version)
    if row.n_total > row.n_problems:
        _add_rows(conn, measurement_id, row.problem_set, row.n_problems, row.n_total)


def _sync_states(conn: Connection, measurement_id: int, problem_set: str, old: int, new: int) -> None:
    e, p = estimates.c, problems.c
    state = select(p.state).where(p.problem_id == e.problem_id).scalar_subquery()
    changed = select(p.problem_id).where(p.problem_set == problem_set, p.state_version > old)
    theirs = (e.measurement_id == measurement_id) & e.problem_id.in_(changed)
    conn.execute(update(estimates).where(theirs).values(state=state))
    same = measurements.c.measurement_id == measurement_id
    conn.execute(update(measurements).where(same).values(state_version=new))


def _add_rows(conn: Connection, measurement_id: int, problem_set: str, first: int, n_total: int) -> None:
    zero = {name: literal(0, Integer).label(name) for name in _COUNTS}
    columns = {
        "measurement_id": literal(measurement_id).label("measurement_id"),
        "problem_id": problems.c.problem_id,
        "ordinal": problems.c.ordinal,
        "holdout_key": problems.c.holdout_key,
        "state": problems.c.state,
        "checkpoint_index": literal(NEVER, Integer).label("checkpoint_index"),
        "skill": func.coalesce(func.substr(problems.c.tags[0].as_string(), 1, 64), "").label("skill"),
        **zero,
    }
    source = select(*columns.values()).where(
        problems.c.problem_set == problem_set,
        problems.c.ordinal.between(first, n_total - 1),
    )
    conn.execute(insert(estimates).from_select(list(columns), source))
    same = measurements.c.measurement_id == measurement_id
    conn.execute(update(measurements).where(same).values(n_problems=n_total))


_COUNTS = (
    "n_groups",
    "n_passed",
    "n_counted",
    "first_passed",
    "first_counted",
    "last_passed",
    "last_counted",
    "discounted_passed",
    "discounted_failed",
    "logit_mean",
    "logit_variance",
    "ability_seen",
    "belief_index",
    "alone_mean",
    "alone_variance",
    "n_failed",
    "n_truncated",
    "n_timeout",
    "n_grader_error",
    "n_infrastructure",
    "failure_streak",
)


def is_due(latest_index: int, now: dt.datetime) -> ColumnElement[bool]:
    """Estimate rows that a worker may lease: ready, not measured at this checkpoint, not leased, not in quarantine."""
    c = estimates.c
    return and_(
        c.state == ProblemState.READY,
        c.checkpoint_index < latest_index,
        or_(c.lease_expires_at.is_(None), c.lease_expires_at <= now),
        or_(c.quarantined_until.is_(None), c.quarantined_until <= now),
    )


def is_held_out(holdout_share: float) -> ColumnElement[bool]:
    """Estimate rows of the hold-out: ready, and by their key below the share."""
    return and_(estimates.c.state == ProblemState.READY, estimates.c.holdout_key < holdout_threshold(holdout_share))


def _check_parts(conn: Connection, body: MeasurementCreate) -> None:
    for table, column, value, what in (
        (students, students.c.name, body.student, "student"),
        (problem_sets, problem_sets.c.name, body.problem_set, "problem set"),
        (profiles, profiles.c.profile_id, body.profile_id, "sampling profile"),
    ):
        if conn.execute(select(column).select_from(table).where(column == value)).first() is None:
            raise NotFound(f"there is no {what} {value!r}")


def _check_same(n_rollouts: int, body: MeasurementCreate) -> None:
    if n_rollouts != body.n_rollouts:
        raise Conflict(
            f"student {body.student!r} is measured on {body.problem_set!r} under {body.profile_id} with "
            f"{n_rollouts} answers a problem, not {body.n_rollouts}; ask for {n_rollouts} or take another profile",
            code="already_exists",
        )


def _progress(conn: Connection, row: dict[str, Any], now: dt.datetime) -> Measurement:
    checkpoint = latest_checkpoint(conn, row["student"])
    latest = NEVER if checkpoint is None else checkpoint.index
    c = estimates.c
    is_ready = c.state == ProblemState.READY
    is_holdout = is_held_out(row["holdout_share"])
    at_latest = and_(c.checkpoint_index == latest, c.checkpoint_index > NEVER)

    def n_where(condition: ColumnElement[bool]) -> Any:
        return func.count().filter(condition)

    query = select(
        n_where(true()).label("n_problems"),
        n_where(c.checkpoint_index > NEVER).label("n_measured"),
        n_where(at_latest).label("n_at_latest"),
        n_where(is_holdout).label("n_holdout"),
        n_where(and_(is_holdout, at_latest)).label("n_holdout_at_latest"),
        n_where(c.lease_expires_at > now).label("n_leased"),
        n_where(is_ready & (c.quarantined_until > now)).label("n_quarantined"),
        n_where(~is_ready).label("n_flagged"),
        n_where(is_due(latest, now)).label("n_due"),
    ).where(c.measurement_id == row["measurement_id"])
    counts = conn.execute(query).mappings().one()
    n_served = demand.n_served(conn, row["measurement_id"])
    public = {**row, **counts, "n_served": n_served, "measurement_id": numbered("mea", row["measurement_id"])}
    return Measurement.model_validate({**public, "latest_checkpoint": checkpoint})


def measurement_number(public_id: str) -> int:
    """The row number of a measurement's public id."""
    return number_of("mea", public_id)
