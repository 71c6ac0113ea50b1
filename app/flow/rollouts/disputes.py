"""Stored verdicts that someone should look at: graders that differ, and failed answers that hold the reference."""

import re
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, literal, select

from app.db.engine import Database
from app.db.tables import estimates, observations, problems, reviews, rollouts
from app.db.transaction import reads, rows_as_dicts
from app.flow.rollouts.measurements import measurement_row
from app.ids import numbered
from paced.wire import Dispute, DisputeKind, Verdict

MAX_ROLLOUTS = 1024  # of a group: an answer's place in the list is observation * MAX_ROLLOUTS + position
JUDGED = (Verdict.PASS, Verdict.FAIL)
N_CANDIDATES = 500


class DisputeStore:
    """Every statement on disputes."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @reads
    def page(self, conn: Connection, measurement_id: int, kind: DisputeKind, after: int, limit: int) -> list[Dispute]:
        """Disputes of one kind that nobody reviewed, above a place in the list, by observation and position."""
        measurement_row(conn, measurement_id)
        is_differing = kind == DisputeKind.GRADERS_DIFFER
        find = func.instr if conn.dialect.name == "sqlite" else func.strpos
        found: list[Dispute] = []
        while len(found) < limit:
            query = (
                (_differing(measurement_id) if is_differing else _holding(measurement_id, find))
                .where(_place() > after, ~_is_reviewed())
                .order_by(_place())
                .limit(N_CANDIDATES)
            )
            rows = rows_as_dicts(conn.execute(query))
            found += [_dispute(kind, row) for row in rows if is_differing or holds_reference(row)]
            if len(rows) < N_CANDIDATES:
                break
            after = rows[-1]["dispute_id"]
        return found[:limit]


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


def _differing(measurement_id: int) -> Select[Any]:
    """Answers that this measurement and one regraded from it (or that it was regraded from) judge otherwise."""
    o, r = observations.c, rollouts.c
    other, theirs = observations.alias("other"), rollouts.alias("theirs")
    is_copy = (other.c.regraded_from == o.observation_id) | (other.c.observation_id == o.regraded_from)
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
    return (
        select(*_columns(), literal(None).label("other_verdict"), literal(None).label("other_measurement_id"))
        .select_from(observations)
        .join(rollouts, r.observation_id == o.observation_id)
        .join(problems, problems.c.problem_id == o.problem_id)
        .join(estimates, (e.measurement_id == o.measurement_id) & (e.problem_id == o.problem_id))
        .where(o.measurement_id == measurement_id, e.n_passed == 0, r.verdict == Verdict.FAIL)
        .where(reference != "", find(r.text, reference) > 0)
    )


def _dispute(kind: DisputeKind, row: dict[str, Any]) -> Dispute:
    other = row["other_measurement_id"]
    return Dispute.model_validate(
        {**row, "kind": kind, "other_measurement_id": None if other is None else numbered("mea", other)}
    )
