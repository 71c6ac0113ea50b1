"""Observations and the posterior columns they move, in one transaction with whatever reports them."""

import asyncio
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, bindparam, func, insert, literal, select, text, update

from app.db.engine import Database
from app.db.tables import estimates, observations, problem_sets, problems
from app.db.transaction import reads, rows_as_dicts, rows_in, writes
from app.errors import Invalid, NotFound
from app.flow.estimates import bulk
from app.flow.estimates.branches import reported
from app.flow.estimates.columns import BoolArray, Columns, FloatArray, IntArray
from app.flow.estimates.holdout import holdout_points
from app.flow.estimates.moves import MOVED, NOT_PASSED
from app.flow.estimates.skills import abilities_of, locked_abilities, store_abilities
from app.flow.estimates.totals import TOTALS, Totals
from app.flow.estimates.turns import wait_to_report
from app.flow.problems.store import has_tag, problem_from_row, prompt_holds
from app.flow.rollouts.groups import Group
from app.flow.rollouts.measurements import is_held_out, measurement_row, sync_rows
from app.flow.students.lines import Line, line_of, newest_fork
from app.ids import numbered
from paced.wire import HoldoutPoint, Observation, Problem, Verdict


@dataclass(frozen=True, slots=True)
class Change:
    """What a transaction did to estimates, for the arrays in memory."""

    measurement_id: int
    rows: list[dict[str, Any]]
    abilities: list[dict[str, Any]]
    watermark: int


@dataclass(frozen=True, slots=True)
class LoadedRows:
    """Rows for the arrays in memory, by ordinal; `columns.skill` is the place in `skills`."""

    problem_ids: IntArray
    holdout_keys: IntArray
    is_ready: BoolArray
    n_groups: IntArray
    quarantined_until: FloatArray  # seconds since the epoch, 0 when free
    skills: list[str]
    columns: Columns
    abilities: list[dict[str, Any]]
    watermark: int
    state_version: int
    fork_index: int
    snapshot: str  # of PostgreSQL, taken before the rows were read; elsewhere empty


class EstimateStore:
    """Every statement on estimates and observations."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def write(
        self, conn: Connection, measurement_id: int, groups: Sequence[Group], now: dt.datetime
    ) -> tuple[dict[int, int], Change]:
        """Count groups in the caller's transaction; returns observation ids by problem id, and the change.

        Rows are locked in the order of their ids and before observations get theirs, so that concurrent reports
        cannot deadlock, and the log's order is the order in which estimates moved.
        """
        wait_to_report(conn, measurement_id)
        ordered = sorted(groups, key=lambda group: group.problem_id)
        rows = _locked_rows(conn, measurement_id, [group.problem_id for group in ordered])
        skills = {rows[group.problem_id]["skill"] for group in ordered if group.n_counted}
        found = locked_abilities(conn, measurement_id, skills)
        ids = _added(conn, [_observation_row(measurement_id, group, now) for group in ordered])
        moved = reported(rows, ordered, found, line_of(conn, measurement_id), now)
        conn.execute(UPDATE_ROWS, [parameters(row) for row in moved])
        store_abilities(conn, found)
        by_problem = {group.problem_id: observation_id for group, observation_id in zip(ordered, ids, strict=True)}
        return by_problem, Change(measurement_id, moved, list(found.values()), max(ids))

    @writes
    def grow(self, conn: Connection, measurement_id: int) -> None:
        """Make rows for problems imported since."""
        sync_rows(conn, measurement_id)

    async def load(self, measurement_id: int) -> LoadedRows:
        """Every row of a measurement."""
        # read before the rows, so that neither stands for an observation that they lack
        snapshot, watermark, measurement, known = await self._head(measurement_id)
        if measurement["n_problems"] >= bulk.MANY:
            arrays, skills = await asyncio.to_thread(
                bulk.read_apart, self.db.url, measurement_id, measurement["n_problems"]
            )
        else:
            arrays, skills = await self._rows(measurement_id)
        return LoadedRows(
            problem_ids=arrays["problem_id"],
            holdout_keys=arrays["holdout_key"],
            is_ready=arrays["is_ready"],
            n_groups=arrays["n_groups"],
            quarantined_until=arrays["quarantined_until"],
            skills=skills,
            columns=Columns.stored(arrays),
            abilities=known,
            watermark=watermark,
            state_version=measurement["state_version"],
            fork_index=measurement["fork_index"],
            snapshot=snapshot,
        )

    @reads
    def _head(self, conn: Connection, measurement_id: int) -> tuple[str, int, dict[str, Any], list[dict[str, Any]]]:
        is_sqlite = conn.dialect.name == "sqlite"
        snapshot = "" if is_sqlite else str(conn.execute(text("SELECT pg_current_snapshot()::text")).scalar_one())
        watermark = _watermark(conn, measurement_id)
        return snapshot, watermark, _measurement(conn, measurement_id), abilities_of(conn, measurement_id)

    @reads
    def _rows(self, conn: Connection, measurement_id: int) -> tuple[bulk.Arrays, list[str]]:
        return bulk.read(conn, measurement_id)

    @reads
    def rows_with(
        self, conn: Connection, measurement_id: int, tags: Sequence[str] | None, sources: Sequence[str] | None
    ) -> IntArray:
        """Ordinals of the problems with any of the tags and of the sources, in order; None admits all."""
        e, p = estimates.c, problems.c
        query = select(e.ordinal).join(problems, p.problem_id == e.problem_id).order_by(e.ordinal)
        query = query.where(e.measurement_id == measurement_id)
        if sources is not None:
            query = query.where(p.source.in_(sources))
        if tags is not None:
            query = query.where(has_tag(conn, tags))
        return np.array(conn.execute(query).scalars().all(), np.int64)

    @reads
    def rows_of_word(self, conn: Connection, problem_set: str, field: str, value: str) -> IntArray:
        """Ordinals of the problems of a set that have a word of a query."""
        p = problems.c
        holds = {
            "text": lambda: prompt_holds(value),
            "tag": lambda: has_tag(conn, [value]),
            "source": lambda: p.source == value,
            "flag": lambda: p.flag == value,
            "is": lambda: p.state == value,
        }[field]()
        query = select(p.ordinal).where(p.problem_set == problem_set, holds)
        return np.array(conn.execute(query).scalars().all(), np.int64)

    async def totals(self, measurement_id: int, n_problems: int) -> Totals:
        """Counts by verdict of the problems with ordinals below `n_problems`."""
        if n_problems >= 10 * bulk.MANY:  # they are few columns
            arrays = await asyncio.to_thread(bulk.columns_apart, self.db.url, measurement_id, n_problems, TOTALS)
            return Totals(arrays)
        return await self._totals(measurement_id, n_problems)

    @reads
    def _totals(self, conn: Connection, measurement_id: int, n_problems: int) -> Totals:
        c = estimates.c
        query = select(*(c[name] for name in TOTALS)).order_by(c.ordinal)
        rows = conn.execute(query.where(c.measurement_id == measurement_id, c.ordinal < n_problems)).all()
        table = np.array([tuple(row) for row in rows], np.int32).reshape(len(rows), len(TOTALS))
        return Totals(dict(zip(TOTALS, table.T, strict=True)))

    @reads
    def at(self, conn: Connection, measurement_id: int, ordinals: Sequence[int]) -> list[dict[str, Any]]:
        """Estimate rows by their places in the set, in the order asked for, each with `is_holdout`."""
        is_held = is_held_out(measurement_row(conn, measurement_id)["holdout_share"])
        c = estimates.c
        query = select(estimates, is_held.label("is_holdout")).where(c.measurement_id == measurement_id)
        found = {row["ordinal"]: row for row in rows_in(conn, query, c.ordinal, ordinals)}
        return [found[ordinal] for ordinal in ordinals]

    @reads
    def problems(self, conn: Connection, problem_ids: Sequence[int]) -> dict[int, Problem]:
        """Problems by id."""
        rows = rows_in(conn, select(problems), problems.c.problem_id, problem_ids)
        return {row["problem_id"]: problem_from_row(row) for row in rows}

    @reads
    def head(self, conn: Connection, measurement_id: int) -> dict[str, Any]:
        """The measurement's row with `fork_index`; size and state version are the set's, `n_rows` its own size."""
        row = _measurement(conn, measurement_id)
        s = problem_sets.c
        now = conn.execute(select(s.n_problems, s.state_version).where(s.name == row["problem_set"])).one()
        return {**row, "n_rows": row["n_problems"], "n_problems": now.n_problems, "state_version": now.state_version}

    @reads
    def page(self, conn: Connection, measurement_id: int, after: int, limit: int) -> list[dict[str, Any]]:
        """Estimate rows by ordinal, each with `is_holdout`."""
        is_held = is_held_out(measurement_row(conn, measurement_id)["holdout_share"])
        c = estimates.c
        query = select(estimates, is_held.label("is_holdout")).where(c.measurement_id == measurement_id)
        return rows_as_dicts(conn.execute(query.where(c.ordinal > after).order_by(c.ordinal).limit(limit)))

    @reads
    def line(self, conn: Connection, measurement_id: int) -> Line:
        """The checkpoints that posteriors follow."""
        return line_of(conn, measurement_id)

    @reads
    def get(self, conn: Connection, measurement_id: int, problem_id: int) -> dict[str, Any]:
        """One estimate row with `is_holdout`; NotFound when there is none."""
        is_held = is_held_out(measurement_row(conn, measurement_id)["holdout_share"])
        c = estimates.c
        query = select(estimates, is_held.label("is_holdout"))
        rows = rows_as_dicts(conn.execute(query.where(c.measurement_id == measurement_id, c.problem_id == problem_id)))
        if not rows:
            raise NotFound(f"measurement {numbered('mea', measurement_id)} has no problem {problem_id}")
        return rows[0]

    @reads
    def observations(
        self, conn: Connection, measurement_id: int, problem_ids: Sequence[int], watermark: int | None = None
    ) -> list[Observation]:
        """Observations of some problems up to a watermark, the newest of each problem first."""
        c = observations.c
        query = select(observations).where(c.measurement_id == measurement_id).order_by(c.observation_id.desc())
        if watermark is not None:
            query = query.where(c.observation_id <= watermark)
        rows = rows_in(conn, query, c.problem_id, problem_ids)
        return [Observation.model_validate({**row, "verdicts": verdict_counts(row)}) for row in rows]

    @reads
    def holdout(self, conn: Connection, measurement_id: int) -> list[HoldoutPoint]:
        """The hold-out at each checkpoint."""
        return holdout_points(conn, measurement_id)


def verdict_counts(row: dict[str, Any]) -> dict[str, int]:
    """Counts by verdict of an observation's row, zeros left out."""
    counts = {Verdict.PASS: row["n_passed"], **{verdict: row[f"n_{name}"] for name, verdict in NOT_PASSED.items()}}
    return {verdict.value: n for verdict, n in counts.items() if n}


def _locked_rows(conn: Connection, measurement_id: int, ids: list[int]) -> dict[int, dict[str, Any]]:
    c = estimates.c
    query = select(estimates).where(c.measurement_id == measurement_id).order_by(c.problem_id).with_for_update()
    rows = {row["problem_id"]: row for row in rows_in(conn, query, c.problem_id, ids)}
    strangers = [problem_id for problem_id in ids if problem_id not in rows]
    if strangers:
        raise Invalid(
            f"problems {strangers[:10]} are not part of measurement {numbered('mea', measurement_id)}",
            code="unknown_problem",
        )
    return rows


def _added(conn: Connection, rows: list[dict[str, Any]]) -> list[int]:
    """Insert observations; returns their ids, in order."""
    c = observations.c.observation_id
    if conn.dialect.name == "sqlite":  # which returns ids of one row at a time; but nobody writes beside us
        conn.execute(insert(observations), rows)
        newest = conn.execute(select(c).order_by(c.desc()).limit(len(rows)))
        return sorted(newest.scalars())
    return list(conn.execute(insert(observations).returning(c, sort_by_parameter_order=True), rows).scalars())


def _measurement(conn: Connection, measurement_id: int) -> dict[str, Any]:
    row = measurement_row(conn, measurement_id)
    return {**row, "fork_index": conn.execute(select(newest_fork(literal(row["student"])))).scalar_one()}


def _watermark(conn: Connection, measurement_id: int) -> int:
    query = select(func.max(observations.c.observation_id)).where(observations.c.measurement_id == measurement_id)
    return conn.execute(query).scalar() or 0


def _observation_row(measurement_id: int, group: Group, now: dt.datetime) -> dict[str, Any]:
    return {
        "measurement_id": measurement_id,
        "problem_id": group.problem_id,
        "checkpoint_index": group.checkpoint_index,
        "source": group.source,
        "lease_id": group.lease_id,
        "batch_id": group.batch_id,
        "regraded_from": group.regraded_from,
        "n_passed": group.n_passed,
        "n_counted": group.n_counted,
        **{f"n_{name}": group.verdicts[verdict] for name, verdict in NOT_PASSED.items()},
        "created_at": now,
    }


UPDATE_ROWS = (
    update(estimates)
    .where(estimates.c.measurement_id == bindparam("m"), estimates.c.problem_id == bindparam("p"))
    .values({name: bindparam(f"new_{name}") for name in MOVED})
)


def parameters(row: dict[str, Any]) -> dict[str, Any]:
    """What UPDATE_ROWS takes for one row."""
    new = {f"new_{name}": row[name] for name in MOVED}
    return {"m": row["measurement_id"], "p": row["problem_id"], **new}
