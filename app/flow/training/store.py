"""Runs, their metrics, and teacher texts in the database."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, Select, Table, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from app.db.engine import Database
from app.db.tables import curricula, problems, run_metrics, runs, teacher_references
from app.db.transaction import reads, rows_as_dicts, rows_in, storable, writes
from app.errors import Invalid, NotFound
from app.flow.estimates.columns import FloatArray
from paced.wire import MetricPoint, Run, RunState, Stage, TeacherReference, TeacherReferences, TeacherReferencesQuery

N_NAMING = 500  # steps at either end: a metric may be sent now and then


class TrainingStore:
    """Every statement on runs, metrics and teacher references."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @writes
    def create(self, conn: Connection, wanted: Run) -> Run:
        """Store a run, or return the one of that name on the curriculum."""
        c = runs.c
        known = _query().where(c.curriculum_id == wanted.curriculum_id, c.name == wanted.name)
        row = conn.execute(known).mappings().first()
        if row is not None:
            return Run.model_validate(dict(row))
        query = select(curricula.c.curriculum_id).where(curricula.c.curriculum_id == wanted.curriculum_id)
        if conn.execute(query).first() is None:
            raise NotFound(f"there is no curriculum {wanted.curriculum_id!r}; GET /v1/curricula lists them")
        conn.execute(runs.insert().values(**wanted.model_dump(exclude={"last_step"})))
        return wanted

    @reads
    def get(self, conn: Connection, run_id: str) -> Run:
        """One run; NotFound when there is none."""
        return _run(conn, run_id)

    @reads
    def page(self, conn: Connection, curriculum_id: str | None, after: str | None, limit: int) -> list[Run]:
        """Runs by id."""
        query = _query().order_by(runs.c.run_id).limit(limit)
        if curriculum_id is not None:
            query = query.where(runs.c.curriculum_id == curriculum_id)
        if after is not None:
            query = query.where(runs.c.run_id > after)
        return [Run.model_validate(row) for row in rows_as_dicts(conn.execute(query))]

    @reads
    def of_curricula(
        self, conn: Connection, curriculum_ids: Sequence[str], limit: int, *, is_other: bool = False
    ) -> list[Run]:
        """Runs of several curricula, or of all others, the newest first."""
        c = runs.c.curriculum_id
        is_wanted = c.not_in(curriculum_ids) if is_other else c.in_(curriculum_ids)
        query = _query().where(is_wanted).order_by(runs.c.created_at.desc())
        return [Run.model_validate(row) for row in rows_as_dicts(conn.execute(query.limit(limit)))]

    @writes
    def set_state(self, conn: Connection, run_id: str, state: RunState, now: dt.datetime) -> Run:
        """Say how a run ended."""
        _run(conn, run_id)
        conn.execute(update(runs).where(runs.c.run_id == run_id).values(state=state, updated_at=now))
        return _run(conn, run_id)

    @writes
    def append(self, conn: Connection, run_id: str, points: Sequence[MetricPoint], now: dt.datetime) -> Run:
        """Store metrics; a step stored before is replaced."""
        _run(conn, run_id)
        rows = [{**point.model_dump(), "run_id": run_id, "created_at": now} for point in points]
        if rows:
            _upsert(conn, run_metrics, ["run_id", "step"], rows)
        conn.execute(update(runs).where(runs.c.run_id == run_id).values(updated_at=now))
        return _run(conn, run_id)

    @reads
    def metrics(self, conn: Connection, run_id: str, after: int, limit: int) -> list[MetricPoint]:
        """Metrics of a run above a step."""
        _run(conn, run_id)
        m = run_metrics.c
        query = select(m.step, m.stage, m["values"]).where(m.run_id == run_id, m.step > after)
        rows = rows_as_dicts(conn.execute(query.order_by(m.step).limit(limit)))
        return [MetricPoint.model_validate(row) for row in rows]

    @reads
    def metric_names(self, conn: Connection, run_id: str) -> set[str]:
        """Names in the first and in the newest steps: a stage may bring names of its own."""
        m = run_metrics.c
        found: set[str] = set()
        for order in (m.step.asc(), m.step.desc()):
            rows = conn.execute(select(m["values"]).where(m.run_id == run_id).order_by(order).limit(N_NAMING))
            found.update(name for (values,) in rows for name in values)
        return found

    @reads
    def columns(
        self, conn: Connection, run_id: str, names: Sequence[str]
    ) -> tuple[FloatArray, list[Stage], dict[str, FloatArray]]:
        """Steps, their stages, and metrics by name, NaN where a step lacks one; by step, however long the run."""
        m = run_metrics.c
        values = [m["values"][name].as_float().label(f"value_{i}") for i, name in enumerate(names)]
        rows = conn.execute(select(m.step, m.stage, *values).where(m.run_id == run_id).order_by(m.step)).all()
        table = np.array([row[2:] for row in rows], np.float64).reshape(len(rows), len(names))
        columns = {name: table[:, place] for place, name in enumerate(names)}
        return np.array([row.step for row in rows], np.float64), [row.stage for row in rows], columns

    @reads
    def newest(self, conn: Connection, run_ids: Sequence[str]) -> dict[str, MetricPoint]:
        """The newest step of each run that has one."""
        m, other = run_metrics.c, run_metrics.alias("other").c
        last = select(func.max(other.step)).where(other.run_id == m.run_id).correlate(run_metrics).scalar_subquery()
        query = select(m.run_id, m.step, m.stage, m["values"]).where(m.step == last)
        rows = rows_in(conn, query, m.run_id, run_ids)
        return {row.pop("run_id"): MetricPoint.model_validate(row) for row in rows}

    @writes
    def put_references(self, conn: Connection, body: TeacherReferences, now: dt.datetime) -> None:
        """Store teacher texts; a text stored before is replaced."""
        ids = sorted({reference.problem_id for reference in body.references})
        known = rows_in(conn, select(problems.c.problem_id), problems.c.problem_id, ids)
        strangers = set(ids) - {row["problem_id"] for row in known}
        if strangers:
            raise Invalid(f"there are no problems {sorted(strangers)[:10]}", code="unknown_problem")
        same = {"teacher": body.teacher, "created_at": now}
        by_problem = {r.problem_id: {**r.model_dump(), "text": storable(r.text), **same} for r in body.references}
        rows = [by_problem[problem_id] for problem_id in ids]  # in one order, so that two writers cannot deadlock
        if rows:
            _upsert(conn, teacher_references, ["teacher", "problem_id"], rows)

    @reads
    def said_of(self, conn: Connection, problem_id: int) -> dict[str, TeacherReference]:
        """Stored texts on one problem, by teacher."""
        t = teacher_references.c
        query = select(t.teacher, t.problem_id, t.text, t.n_tokens, t.finish_reason)
        rows = rows_as_dicts(conn.execute(query.where(t.problem_id == problem_id).order_by(t.teacher)))
        return {row.pop("teacher"): TeacherReference.model_validate(row) for row in rows}

    @reads
    def references(self, conn: Connection, body: TeacherReferencesQuery) -> list[TeacherReference]:
        """Stored texts of a teacher on some problems."""
        t = teacher_references.c
        query = select(t.problem_id, t.text, t.n_tokens, t.finish_reason).where(t.teacher == body.teacher)
        rows = rows_in(conn, query.order_by(t.problem_id), t.problem_id, sorted(set(body.problem_ids)))
        return [TeacherReference.model_validate(row) for row in rows]


def _query() -> Select[Any]:
    last = select(func.max(run_metrics.c.step)).where(run_metrics.c.run_id == runs.c.run_id).scalar_subquery()
    return select(runs, last.label("last_step"))


def _run(conn: Connection, run_id: str) -> Run:
    row = conn.execute(_query().where(runs.c.run_id == run_id)).mappings().first()
    if row is None:
        raise NotFound(f"there is no run {run_id!r}; POST /v1/runs makes one")
    return Run.model_validate(dict(row))


def _upsert(conn: Connection, table: Table, key: list[str], rows: list[dict[str, Any]]) -> None:
    make = sqlite.insert if conn.dialect.name == "sqlite" else postgresql.insert
    statement = make(table)
    changed = {name: statement.excluded[name] for name in rows[0] if name not in key}
    conn.execute(statement.on_conflict_do_update(index_elements=key, set_=changed), rows)
