"""Decisions in the database: a problem is served, perhaps with a corrected answer, set aside, or left out."""

import datetime as dt
from typing import Any

from sqlalchemy import Connection, Select, exists, insert, select, update

from app.db.engine import Database
from app.db.tables import decisions, observations, problem_sets, problems
from app.db.transaction import reads, rows_as_dicts, writes
from app.errors import Conflict, Invalid, NotFound
from app.flow.problems.store import problem_from_row
from paced.wire import Decision, Flag, Problem, ProblemDecision, ProblemState


class DecisionStore:
    """Every statement on decisions."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @writes
    def decide(self, conn: Connection, name: str, ordinal: int, body: ProblemDecision, now: dt.datetime) -> Problem:
        """Change a problem's state, and its answer if none was judged against it; keep who did what.

        The set's state version grows, by which measurements and draws follow.
        """
        s = problem_sets.c
        locked = select(s.state_version).where(s.name == name).with_for_update()
        version = conn.execute(locked).scalar()
        c = problems.c
        same = (c.problem_set == name) & (c.ordinal == ordinal)
        row = conn.execute(select(problems).where(same)).mappings().first()
        if row is None:
            raise NotFound(f"problem set {name!r} has no problem {ordinal}")
        answer = row["answer"] if body.answer is None else body.answer
        _check(conn, dict(row), body, answer)
        is_undecided = body.state == ProblemState.FLAGGED
        values = {"state": body.state, "answer": answer, "flag": row["flag"] or Flag.REVIEW}
        values["state_version"] = int(version or 0) + 1
        if row["flag"] is None:
            values["flag_detail"] = body.note or f"set aside by {body.decided_by}"
        conn.execute(update(problems).where(same).values(**values))
        n_more = int(is_undecided) - int(row["state"] == ProblemState.FLAGGED)
        totals = {"n_flagged": s.n_flagged + n_more, "state_version": values["state_version"]}
        conn.execute(update(problem_sets).where(s.name == name).values(**totals))
        conn.execute(insert(decisions).values(**_record(dict(row), body, answer, now)))
        return problem_from_row({**row, "flag_detail": row["flag_detail"], **values})

    @reads
    def page(self, conn: Connection, name: str, after: int, limit: int) -> list[Decision]:
        """Decisions on a set's problems, oldest first, each with its ordinal."""
        query = _of_set(name).where(decisions.c.decision_id > after).order_by(decisions.c.decision_id).limit(limit)
        return [Decision.model_validate(row) for row in rows_as_dicts(conn.execute(query))]

    @reads
    def of_problem(self, conn: Connection, name: str, ordinal: int) -> list[Decision]:
        """Decisions on one problem, newest first."""
        query = _of_set(name).where(problems.c.ordinal == ordinal).order_by(decisions.c.decision_id.desc())
        return [Decision.model_validate(row) for row in rows_as_dicts(conn.execute(query))]


def _of_set(name: str) -> Select[Any]:
    joined = select(decisions, problems.c.ordinal).join(problems, problems.c.problem_id == decisions.c.problem_id)
    return joined.where(problems.c.problem_set == name)


def _check(conn: Connection, row: dict[str, Any], body: ProblemDecision, answer: str) -> None:
    if body.state == ProblemState.READY and not answer.strip():
        raise Invalid(
            f"problem {row['ordinal']} has no answer: give one (answer) to serve it, or exclude it", code="no_answer"
        )
    if answer == row["answer"]:
        return
    is_judged = exists().where(observations.c.problem_id == row["problem_id"])
    if conn.execute(select(is_judged)).scalar():
        raise Conflict(
            f"answers to problem {row['ordinal']} were judged against {row['answer'][:80]!r}: their pass rate would "
            "mix two references. Exclude it, and import the corrected problem into another set",
            code="already_measured",
        )


def _record(row: dict[str, Any], body: ProblemDecision, answer: str, now: dt.datetime) -> dict[str, Any]:
    return {
        "problem_id": row["problem_id"],
        "state_before": row["state"],
        "state_after": body.state,
        "answer_before": row["answer"],
        "answer_after": answer,
        "note": body.note,
        "decided_by": body.decided_by,
        "created_at": now,
    }
