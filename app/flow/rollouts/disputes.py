"""Stored verdicts that someone should look at: graders that differ, and failed answers that hold the reference."""

import re
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, literal, select

from app.db.engine import Database
from app.db.tables import estimates, measurements, observations, problems, reviews, rollouts
from app.db.transaction import reads, rows_as_dicts
from app.flow.rollouts.measurements import measurement_row
from app.ids import numbered
from paced.wire import Dispute, DisputeKind, Verdict

MAX_ROLLOUTS = 1024  # of a group: an answer's place in the list is observation * MAX_ROLLOUTS + position
JUDGED = (Verdict.PASS, Verdict.FAIL)
N_CANDIDATES = 500
WINDOW = 50_000  # observations


class DisputeStore:
    """Every statement on disputes."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @reads
    def page(self, conn: Connection, measurement_id: int, kind: DisputeKind, after: int, limit: int) -> list[Dispute]:
        """Disputes of one kind that nobody reviewed, above a place in the list, by observation and position."""
        measurement = measurement_row(conn, measurement_id)
        if kind == DisputeKind.GRADERS_DIFFER:
            return [_dispute(kind, row) for row in _differing(conn, measurement, after, limit)]
        find = func.instr if conn.dialect.name == "sqlite" else func.strpos
        newest = conn.execute(select(func.max(observations.c.observation_id))).scalar() or 0
        found: list[Dispute] = []
        width = WINDOW
        while len(found) < limit and after < (newest + 1) * MAX_ROLLOUTS:
            # a stretch of the log at a time: the whole of it would be read and sorted for each page
            end = max(after, 0) // MAX_ROLLOUTS + width
            query = _on(_holding(measurement_id, find).where(rollouts.c.observation_id < end), after, N_CANDIDATES)
            rows = rows_as_dicts(conn.execute(query))
            found += [_dispute(kind, row) for row in rows if holds_reference(row)]
            is_over = len(rows) < N_CANDIDATES
            after = end * MAX_ROLLOUTS - 1 if is_over else rows[-1]["dispute_id"]
            width = 2 * width if is_over else width
        return found[:limit]


def _on(query: Select[Any], after: int, limit: int) -> Select[Any]:
    """The next of a query's answers that nobody reviewed: by the key, so that no more is read than asked for."""
    r = rollouts.c
    query = query.where(r.observation_id >= max(after, 0) // MAX_ROLLOUTS, _place() > after, ~_is_reviewed())
    return query.order_by(r.observation_id, r.position).limit(limit)


def _differing(conn: Connection, measurement: dict[str, Any], after: int, limit: int) -> list[dict[str, Any]]:
    """Answers that this measurement and one regraded from it (or that it was regraded from) judge otherwise.

    Each way is a query of its own, with an index: of one with OR, a database reads the log once for each observation.
    """
    m, o, other = measurements.c, observations.c, observations.alias("other")
    same = (m.student == measurement["student"], m.problem_set == measurement["problem_set"])
    siblings = conn.execute(select(m.measurement_id).where(*same)).scalars().all()
    copied = (other.c.measurement_id.in_(siblings)) & (other.c.regraded_from == o.observation_id)
    ways = [copied, other.c.observation_id == o.regraded_from] if len(siblings) > 1 else []
    found = [
        row
        for way in ways
        for row in rows_as_dicts(
            conn.execute(_on(_judged_otherwise(measurement["measurement_id"], other, way), after, limit))
        )
    ]
    return sorted(found, key=lambda row: int(row["dispute_id"]))[:limit]


def holds_reference(row: dict[str, Any]) -> bool:
    """Whether the text holds the reference as a whole word or number: 5 does not stand in 15 or 5.2."""
    pattern = rf"(?<![\w.]){re.escape(row['answer'].strip())}(?![\w]|[.,]\d)"
    return re.search(pattern, row["text"]) is not None


def _place() -> Any:
    return rollouts.c.observation_id * MAX_ROLLOUTS + rollouts.c.position


def _is_reviewed() -> ColumnElement[bool]:
    r, same = rollouts.c, reviews.c
    return exists().where(same.observation_id == r.observation_id, same.position == r.position)


def _columns() -> list[Any]:
    o, r, p = observations.c, rollouts.c, problems.c
    shown = (o.observation_id, r.position, o.problem_id, p.ordinal, p.answer, r.text, r.extracted, r.verdict)
    return [_place().label("dispute_id"), *shown]


def _judged_otherwise(measurement_id: int, other: Any, is_copy: ColumnElement[bool]) -> Select[Any]:
    o, r = observations.c, rollouts.c
    theirs = rollouts.alias("theirs")
    same_answer = and_(theirs.c.observation_id == other.c.observation_id, theirs.c.position == r.position)
    return (
        select(
            *_columns(), theirs.c.verdict.label("other_verdict"), other.c.measurement_id.label("other_measurement_id")
        )
        .select_from(observations)
        .join(rollouts, r.observation_id == o.observation_id)
        .join(problems, problems.c.problem_id == o.problem_id)
        .join(other, is_copy)
        .join(theirs, same_answer)
        .where(o.measurement_id == measurement_id, r.verdict != theirs.c.verdict)
        .where(r.verdict.in_(JUDGED), theirs.c.verdict.in_(JUDGED))
    )


def _holding(measurement_id: int, find: Any) -> Select[Any]:
    """Failed answers of problems that never passed, in whose text the reference occurs."""
    o, r, e = observations.c, rollouts.c, estimates.c
    reference = func.trim(problems.c.answer)
    never = select(e.problem_id).where(e.measurement_id == measurement_id, e.n_passed == 0, e.n_counted > 0)
    return (
        select(*_columns(), literal(None).label("other_verdict"), literal(None).label("other_measurement_id"))
        .select_from(observations)
        .join(rollouts, r.observation_id == o.observation_id)
        .join(problems, problems.c.problem_id == o.problem_id)
        .where(o.measurement_id == measurement_id, o.problem_id.in_(never), r.verdict == Verdict.FAIL)
        .where(reference != "", find(r.text, reference) > 0)
    )


def _dispute(kind: DisputeKind, row: dict[str, Any]) -> Dispute:
    other = row["other_measurement_id"]
    return Dispute.model_validate(
        {**row, "kind": kind, "other_measurement_id": None if other is None else numbered("mea", other)}
    )
