"""What people decide about a problem: serve it, perhaps with a corrected answer, set it aside, or leave it out."""

import datetime as dt
from typing import Annotated, Any, cast

import structlog
from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.auth.guard import requires
from app.clock import Clock
from app.db.engine import Database
from app.db.tables import decisions, observations, problem_sets, problems
from app.db.transaction import reads, rows_as_dicts, writes
from app.errors import Conflict, Invalid, NotFound
from app.flow.problems.store import problem_from_row
from app.http.pages import NoQuery, PageQuery, page
from paced.wire import Decision, Flag, Page, Problem, ProblemDecision, ProblemState, Scope

log = structlog.get_logger()
router = APIRouter(prefix="/v1/problem-sets/{name}", tags=["1 problems"])


class DecisionStore:
    """Every statement on decisions."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self.db = db
        self._clock = clock

    @writes
    async def decide(self, conn: AsyncConnection, name: str, ordinal: int, body: ProblemDecision) -> Problem:
        """Change a problem's state, and its answer if none was judged against it; keep who did what.

        The set's state version grows, by which measurements and draws follow.
        """
        s = problem_sets.c
        locked = select(s.state_version).where(s.name == name).with_for_update()
        version = (await conn.execute(locked)).scalar()
        c = problems.c
        same = (c.problem_set == name) & (c.ordinal == ordinal)
        row = (await conn.execute(select(problems).where(same))).mappings().first()
        if row is None:
            raise NotFound(f"problem set {name!r} has no problem {ordinal}")
        answer = row["answer"] if body.answer is None else body.answer
        await _check(conn, dict(row), body, answer)
        is_undecided = body.state == ProblemState.FLAGGED
        values = {"state": body.state, "answer": answer, "flag": row["flag"] or Flag.REVIEW}
        values["state_version"] = int(version or 0) + 1
        if row["flag"] is None:
            values["flag_detail"] = body.note or f"set aside by {body.decided_by}"
        await conn.execute(update(problems).where(same).values(**values))
        n_more = int(is_undecided) - int(row["state"] == ProblemState.FLAGGED)
        totals = {"n_flagged": s.n_flagged + n_more, "state_version": values["state_version"]}
        await conn.execute(update(problem_sets).where(s.name == name).values(**totals))
        await conn.execute(insert(decisions).values(**_record(dict(row), body, answer, self._clock())))
        return problem_from_row({**row, "flag_detail": row["flag_detail"], **values})

    @reads
    async def page(self, conn: AsyncConnection, name: str, after: int, limit: int) -> list[dict[str, Any]]:
        """Decisions on a set's problems, oldest first, each with its ordinal."""
        query = (
            select(decisions, problems.c.ordinal)
            .join(problems, problems.c.problem_id == decisions.c.problem_id)
            .where(problems.c.problem_set == name, decisions.c.decision_id > after)
            .order_by(decisions.c.decision_id)
            .limit(limit)
        )
        return rows_as_dicts(await conn.execute(query))


async def _check(conn: AsyncConnection, row: dict[str, Any], body: ProblemDecision, answer: str) -> None:
    if body.state == ProblemState.READY and not answer.strip():
        raise Invalid(
            f"problem {row['ordinal']} has no answer: give one (answer) to serve it, or exclude it", code="no_answer"
        )
    if answer == row["answer"]:
        return
    is_judged = exists().where(observations.c.problem_id == row["problem_id"])
    if (await conn.execute(select(is_judged))).scalar():
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


def _decisions(request: Request) -> DecisionStore:
    return cast("DecisionStore", request.app.state.decisions)


@router.patch("/problems/{ordinal}", operation_id="decide_problem", dependencies=[requires(Scope.IMPORT)])
async def decide(
    request: Request,
    name: str,
    ordinal: Annotated[int, Path(ge=0, lt=2**31)],
    body: ProblemDecision,
    _query: Annotated[NoQuery, Query()],
) -> Problem:
    """Serve, set aside or leave out a problem; leases and draws follow from the next one on."""
    problem = await _decisions(request).decide(name, ordinal, body)
    log.info("decided", problem_set=name, ordinal=ordinal, state=body.state.value, by=body.decided_by)
    return problem


@router.get("/decisions", operation_id="list_decisions", dependencies=[requires(Scope.READ)])
async def listed(
    request: Request, response: Response, name: str, query: Annotated[PageQuery, Query()]
) -> Page[Decision]:
    """Who decided what about the problems of a set, oldest first."""
    after = query.after(int)
    items = await _decisions(request).page(name, -1 if after is None else after, query.limit + 1)
    return page(request, response, [Decision.model_validate(item) for item in items], query.limit, "decision_id")
