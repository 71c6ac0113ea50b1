"""Curricula and their versions in the database."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, update

from app.db.engine import Database
from app.db.tables import batches, curricula, curriculum_versions, measurements, problem_sets
from app.db.transaction import reads, rows_as_dicts, writes
from app.errors import NotFound
from app.flow.curricula.rule import Rule
from app.flow.students.lines import newest_fork
from paced.wire import CurriculumUpdate


@dataclass(frozen=True, slots=True)
class Version:
    """A rule, and since when it is the curriculum's."""

    version: int
    rule: Rule
    created_at: dt.datetime


class CurriculumStore:
    """Every statement on curricula; rows carry their rule, measurement and the size of their set."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @writes
    def create(self, conn: Connection, values: dict[str, Any], rule: Rule) -> dict[str, Any]:
        """Store a curriculum as version 1, or return the one of that name."""
        known = conn.execute(_query().where(curricula.c.name == values["name"])).mappings().first()
        if known is not None:
            return dict(known)
        conn.execute(insert(curricula).values(**values, version=1))
        _add_version(conn, values["curriculum_id"], 1, rule, values["created_at"])
        return _row(conn, values["curriculum_id"])

    @writes
    def change(self, conn: Connection, curriculum_id: str, body: CurriculumUpdate, now: dt.datetime) -> dict[str, Any]:
        """Store the next version."""
        c = curricula.c
        conn.execute(select(c.curriculum_id).where(c.curriculum_id == curriculum_id).with_for_update())
        row = _row(conn, curriculum_id)
        old = Rule.model_validate(row["rule"])
        new = old.changed(body)
        if new == old:
            return row
        version = row["version"] + 1
        _add_version(conn, curriculum_id, version, new, now)
        conn.execute(update(curricula).where(c.curriculum_id == curriculum_id).values(version=version))
        return _row(conn, curriculum_id)

    @reads
    def get(self, conn: Connection, curriculum_id: str) -> dict[str, Any]:
        """One curriculum in its newest version; NotFound when there is none."""
        return _row(conn, curriculum_id)

    @reads
    def rule_at(self, conn: Connection, curriculum_id: str, version: int) -> Rule:
        """The rule of one version."""
        v = curriculum_versions.c
        query = select(v.rule).where(v.curriculum_id == curriculum_id, v.version == version)
        return Rule.model_validate(conn.execute(query).scalar_one())

    @reads
    def changed_at(self, conn: Connection, curriculum_id: str, version: int) -> dt.datetime:
        """When a version was made."""
        v = curriculum_versions.c
        query = select(v.created_at).where(v.curriculum_id == curriculum_id, v.version == version)
        at: dt.datetime = conn.execute(query).scalar_one()
        return at

    @reads
    def versions(self, conn: Connection, curriculum_id: str) -> list[Version]:
        """Every version, oldest first; NotFound when there is no such curriculum."""
        _row(conn, curriculum_id)
        v = curriculum_versions.c
        query = select(v.version, v.rule, v.created_at).where(v.curriculum_id == curriculum_id).order_by(v.version)
        return [Version(row.version, Rule.model_validate(row.rule), row.created_at) for row in conn.execute(query)]

    @reads
    def largest_batch(self, conn: Connection, curriculum_id: str) -> int:
        """Problems of its largest batch so far; 0 when there is none."""
        b = batches.c
        return conn.execute(select(func.max(b.size)).where(b.curriculum_id == curriculum_id)).scalar() or 0

    @reads
    def of_measurement(self, conn: Connection, measurement_id: int) -> list[dict[str, Any]]:
        """Curricula of a measurement, by name."""
        query = _query().where(curricula.c.measurement_id == measurement_id).order_by(curricula.c.name)
        return rows_as_dicts(conn.execute(query))

    @reads
    def page(
        self, conn: Connection, student: str | None, name: str | None, after: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """Curricula by name."""
        query = _query().order_by(curricula.c.name).limit(limit)
        if student is not None:
            query = query.where(measurements.c.student == student)
        if name is not None:
            query = query.where(curricula.c.name == name)
        if after is not None:
            query = query.where(curricula.c.name > after)
        return rows_as_dicts(conn.execute(query))


def _query() -> Select[Any]:
    c, m, v = curricula.c, measurements.c, curriculum_versions.c
    return (
        select(
            curricula,
            m.student,
            m.problem_set,
            m.profile_id,
            m.n_rollouts,
            m.holdout_share,
            newest_fork(m.student),
            problem_sets.c.n_problems,
            problem_sets.c.state_version,
            v.rule,
        )
        .join(measurements, m.measurement_id == c.measurement_id)
        .join(problem_sets, problem_sets.c.name == m.problem_set)
        .join(curriculum_versions, (v.curriculum_id == c.curriculum_id) & (v.version == c.version))
    )


def _row(conn: Connection, curriculum_id: str) -> dict[str, Any]:
    row = conn.execute(_query().where(curricula.c.curriculum_id == curriculum_id)).mappings().first()
    if row is None:
        raise NotFound(f"there is no curriculum {curriculum_id!r}; GET /v1/curricula lists them")
    return dict(row)


def _add_version(conn: Connection, curriculum_id: str, version: int, rule: Rule, now: dt.datetime) -> None:
    values = {"curriculum_id": curriculum_id, "version": version, "rule": rule.model_dump(mode="json")}
    conn.execute(insert(curriculum_versions).values(**values, created_at=now))
