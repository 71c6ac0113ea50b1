"""Curricula and their versions in the database."""

import datetime as dt
from typing import Any

from sqlalchemy import Select, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.tables import curricula, curriculum_versions, measurements, problem_sets
from app.db.transaction import reads, rows_as_dicts, writes
from app.errors import NotFound
from app.flow.curricula.rule import Rule
from paced.wire import CurriculumUpdate


class CurriculumStore:
    """Every statement on curricula; rows carry their rule, measurement and the size of their set."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @writes
    async def create(self, conn: AsyncConnection, values: dict[str, Any], rule: Rule) -> dict[str, Any]:
        """Store a curriculum as version 1, or return the one of that name."""
        known = (await conn.execute(_query().where(curricula.c.name == values["name"]))).mappings().first()
        if known is not None:
            return dict(known)
        await conn.execute(insert(curricula).values(**values, version=1))
        await _add_version(conn, values["curriculum_id"], 1, rule, values["created_at"])
        return await _row(conn, values["curriculum_id"])

    @writes
    async def change(
        self, conn: AsyncConnection, curriculum_id: str, body: CurriculumUpdate, now: dt.datetime
    ) -> dict[str, Any]:
        """Store the next version."""
        c = curricula.c
        await conn.execute(select(c.curriculum_id).where(c.curriculum_id == curriculum_id).with_for_update())
        row = await _row(conn, curriculum_id)
        old = Rule.model_validate(row["rule"])
        new = old.changed(body)
        if new == old:
            return row
        version = row["version"] + 1
        await _add_version(conn, curriculum_id, version, new, now)
        await conn.execute(update(curricula).where(c.curriculum_id == curriculum_id).values(version=version))
        return await _row(conn, curriculum_id)

    @reads
    async def get(self, conn: AsyncConnection, curriculum_id: str) -> dict[str, Any]:
        """One curriculum in its newest version; NotFound when there is none."""
        return await _row(conn, curriculum_id)

    @reads
    async def rule_at(self, conn: AsyncConnection, curriculum_id: str, version: int) -> Rule:
        """The rule of one version."""
        v = curriculum_versions.c
        query = select(v.rule).where(v.curriculum_id == curriculum_id, v.version == version)
        return Rule.model_validate((await conn.execute(query)).scalar_one())

    @reads
    async def page(
        self, conn: AsyncConnection, student: str | None, name: str | None, after: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """Curricula by name."""
        query = _query().order_by(curricula.c.name).limit(limit)
        if student is not None:
            query = query.where(measurements.c.student == student)
        if name is not None:
            query = query.where(curricula.c.name == name)
        if after is not None:
            query = query.where(curricula.c.name > after)
        return rows_as_dicts(await conn.execute(query))


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
            problem_sets.c.n_problems,
            problem_sets.c.state_version,
            v.rule,
        )
        .join(measurements, m.measurement_id == c.measurement_id)
        .join(problem_sets, problem_sets.c.name == m.problem_set)
        .join(curriculum_versions, (v.curriculum_id == c.curriculum_id) & (v.version == c.version))
    )


async def _row(conn: AsyncConnection, curriculum_id: str) -> dict[str, Any]:
    row = (await conn.execute(_query().where(curricula.c.curriculum_id == curriculum_id))).mappings().first()
    if row is None:
        raise NotFound(f"there is no curriculum {curriculum_id!r}; GET /v1/curricula lists them")
    return dict(row)


async def _add_version(conn: AsyncConnection, curriculum_id: str, version: int, rule: Rule, now: dt.datetime) -> None:
    values = {"curriculum_id": curriculum_id, "version": version, "rule": rule.model_dump(mode="json")}
    await conn.execute(insert(curriculum_versions).values(**values, created_at=now))
