"""Every estimate again from the observation log: proof that nothing else moves them, and the way back if it did."""

import datetime as dt
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.tables import abilities, estimates, measurements, observations
from app.db.transaction import reads, rows_as_dicts, writes
from app.flow.estimates.filters import ABILITY_VARIANCE
from app.flow.estimates.moves import MOVED, NOT_PASSED, fresh_row, moved_row
from app.flow.estimates.skills import AbilityRows, with_beliefs
from app.flow.estimates.store import UPDATE_ROWS, parameters
from app.flow.rollouts.groups import Group
from app.ids import numbered
from paced.wire import Verdict

N_READ = 10_000
MAX_GAP = 50_000  # ids between two observations of one report, when many report at once


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What the rebuild of one measurement found; `changed` are problem ids whose estimate was another."""

    measurement_id: str
    n_observations: int
    n_estimates: int
    changed: list[int]
    n_abilities_changed: int


class RebuildStore:
    """Replays observations in the order of their ids, report by report."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @reads
    async def measurement_ids(self, conn: AsyncConnection) -> list[int]:
        """Every measurement, oldest first."""
        c = measurements.c.measurement_id
        return [row.measurement_id for row in await conn.execute(select(c).order_by(c))]

    @reads
    async def check(self, conn: AsyncConnection, measurement_id: int) -> Rebuilt:
        """Compare, change nothing."""
        return (await _compared(conn, measurement_id, _rows_of(measurement_id)))[0]

    @writes
    async def rebuild(self, conn: AsyncConnection, measurement_id: int) -> Rebuilt:
        """Overwrite what differs. A running service would not see it: stop it first."""
        found, rows, skills = await _compared(conn, measurement_id, _rows_of(measurement_id).with_for_update())
        if found.changed:
            await conn.execute(UPDATE_ROWS, [parameters(rows[problem_id]) for problem_id in found.changed])
        if found.n_abilities_changed:
            await conn.execute(delete(abilities).where(abilities.c.measurement_id == measurement_id))
            if skills:
                await conn.execute(insert(abilities), list(skills.values()))
        return found


def _rows_of(measurement_id: int) -> Select[Any]:
    return select(estimates).where(estimates.c.measurement_id == measurement_id)


@dataclass(frozen=True, slots=True)
class Replayed:
    """A report about to be counted: its groups, and the rows and levels of skills as they were before it."""

    groups: list[Group]
    rows: dict[int, dict[str, Any]]
    levels: dict[str, float]


async def replayed(conn: AsyncConnection, measurement_id: int) -> AsyncIterator[Replayed]:
    """Each report of the log in turn, with what was known just before it."""
    query = _rows_of(measurement_id)
    rows = {row["problem_id"]: fresh_row(row) for row in rows_as_dicts(await conn.execute(query))}
    skills: AbilityRows = {}
    async for report in _reports(conn, measurement_id):
        groups = _groups(report)
        yield Replayed(groups, rows, {skill: row["level"] for skill, row in skills.items()})
        _count(groups, report[0]["created_at"], rows, skills, measurement_id)


async def _compared(
    conn: AsyncConnection, measurement_id: int, query: Select[Any]
) -> tuple[Rebuilt, dict[int, dict[str, Any]], AbilityRows]:
    a = abilities.c
    stored = {row["problem_id"]: row for row in rows_as_dicts(await conn.execute(query))}
    known = rows_as_dicts(await conn.execute(select(abilities).where(a.measurement_id == measurement_id)))
    rows = {problem_id: fresh_row(row) for problem_id, row in stored.items()}
    skills: AbilityRows = {}
    n_observations = 0
    async for report in _reports(conn, measurement_id):
        n_observations += len(report)
        _count(_groups(report), report[0]["created_at"], rows, skills, measurement_id)
    found = Rebuilt(
        measurement_id=numbered("mea", measurement_id),
        n_observations=n_observations,
        n_estimates=len(rows),
        changed=[i for i, row in rows.items() if any(row[name] != stored[i][name] for name in MOVED)],
        n_abilities_changed=_n_different(skills, {row["skill"]: row for row in known}),
    )
    return found, rows, skills


def _n_different(made: AbilityRows, stored: AbilityRows) -> int:
    return sum(made.get(skill) != stored.get(skill) for skill in made.keys() | stored.keys())


def _count(
    groups: Sequence[Group],
    now: dt.datetime,
    rows: dict[int, dict[str, Any]],
    skills: AbilityRows,
    measurement_id: int,
) -> None:
    """Move rows and skills in place, as the report did."""
    for group in groups:
        if group.n_counted:
            skill = rows[group.problem_id]["skill"]
            start = {"level": 0.0, "variance": ABILITY_VARIANCE, "index": 0, "n_groups": 0}
            skills.setdefault(skill, {"measurement_id": measurement_id, "skill": skill, **start})
    moved = [moved_row(rows[group.problem_id], group, now) for group in groups]
    for row in with_beliefs(rows, groups, moved, skills):
        rows[row["problem_id"]] = row


def _groups(report: Sequence[dict[str, Any]]) -> list[Group]:
    return [_group(row) for row in sorted(report, key=lambda row: int(row["problem_id"]))]


async def _reports(conn: AsyncConnection, measurement_id: int) -> AsyncIterator[list[dict[str, Any]]]:
    """Observations as they were written: by report, in the order of each report's first id.

    Ids of reports that were written at once interleave. A report is one origin at one time, and names no problem
    twice (a regrade at one time may: each turn of a problem is a report of its own).
    """
    open_reports: dict[Any, dict[int, dict[str, Any]]] = {}
    async for row in _log(conn, measurement_id):
        while open_reports and _is_over(next(iter(open_reports.values())), row):
            yield list(open_reports.pop(next(iter(open_reports))).values())
        origin = (row["created_at"], row["lease_id"], row["batch_id"], row["regraded_from"] is not None)
        turn = 0
        while row["problem_id"] in open_reports.get((origin, turn), {}):
            turn += 1
        open_reports.setdefault((origin, turn), {})[row["problem_id"]] = row
    for report in open_reports.values():
        yield list(report.values())


def _is_over(report: dict[int, dict[str, Any]], row: dict[str, Any]) -> bool:
    newest = next(reversed(report.values()))
    return bool(row["observation_id"] - newest["observation_id"] > MAX_GAP)


async def _log(conn: AsyncConnection, measurement_id: int) -> AsyncIterator[dict[str, Any]]:
    c, last = observations.c, -1
    while True:
        query = (
            select(observations)
            .where(c.measurement_id == measurement_id, c.observation_id > last)
            .order_by(c.observation_id)
            .limit(N_READ)
        )
        rows = rows_as_dicts(await conn.execute(query))
        for row in rows:
            yield row
        if len(rows) < N_READ:
            return
        last = rows[-1]["observation_id"]


def _group(row: dict[str, Any]) -> Group:
    verdicts = Counter({Verdict.PASS: row["n_passed"], **{v: row[f"n_{name}"] for name, v in NOT_PASSED.items()}})
    return Group(row["problem_id"], row["checkpoint_index"], row["source"], row["n_passed"], row["n_counted"], verdicts)
