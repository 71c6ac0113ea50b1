"""Problem sets and problems in the database."""

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, bindparam, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.tables import imports, problem_sets, problems
from app.db.transaction import reads, rows_as_dicts, writes
from app.errors import NotFound
from app.flow.problems.drafts import ProblemDraft
from paced.wire import ImportReport, Problem, ProblemSet, ProblemState


class ProblemStore:
    """Every statement on problem sets and problems."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @writes
    async def create_set(self, conn: AsyncConnection, wanted: ProblemSet) -> ProblemSet:
        """Store a set, or return the one of that name."""
        known = await _set(conn, wanted.name)
        if known is not None:
            return known
        await conn.execute(insert(problem_sets).values(**{**wanted.model_dump(), "policy": wanted.policy.model_dump()}))
        return wanted

    @reads
    async def get_set(self, conn: AsyncConnection, name: str) -> ProblemSet:
        """One set; NotFound when there is none."""
        return _present(name, await _set(conn, name))

    @reads
    async def sets(self, conn: AsyncConnection, after: str | None, limit: int) -> list[ProblemSet]:
        """Sets by name."""
        query = select(problem_sets).order_by(problem_sets.c.name).limit(limit)
        if after is not None:
            query = query.where(problem_sets.c.name > after)
        return [ProblemSet.model_validate(row) for row in rows_as_dicts(await conn.execute(query))]

    @writes
    async def add(
        self, conn: AsyncConnection, name: str, import_id: str, drafts: Sequence[ProblemDraft], now: dt.datetime
    ) -> int:
        """Add one chunk of an import; returns how many are new, the others being twins.

        Twins raise the multiplicity only as far as one import repeats them, so that importing a file
        twice changes nothing.
        """
        found = _present(name, await _set(conn, name, lock=True))
        counts = Counter(draft.fingerprint for draft in drafts)
        known = await self._known(conn, name, counts)
        firsts = {draft.fingerprint: draft for draft in reversed(drafts) if draft.fingerprint not in known}
        new = [draft for draft in drafts if firsts.get(draft.fingerprint) is draft]
        rows = [
            _row(draft, found, ordinal, counts[draft.fingerprint], import_id, now)
            for ordinal, draft in enumerate(new, start=found.n_problems)
        ]
        if rows:
            await conn.execute(insert(problems), rows)
        n_more = await self._raise_multiplicity(conn, import_id, known, counts)
        n_rows = found.n_rows + n_more + sum(row["multiplicity"] for row in rows)
        totals = {"n_problems": found.n_problems + len(rows), "n_rows": n_rows}
        await conn.execute(update(problem_sets).where(problem_sets.c.name == name).values(**totals))
        return len(rows)

    async def _known(self, conn: AsyncConnection, name: str, counts: Mapping[str, int]) -> dict[str, dict[str, Any]]:
        c = problems.c
        columns = (c.fingerprint, c.problem_id, c.import_id, c.import_count, c.multiplicity)
        query = select(*columns).where(c.problem_set == name, c.fingerprint.in_(list(counts)))
        return {row["fingerprint"]: row for row in rows_as_dicts(await conn.execute(query))}

    async def _raise_multiplicity(
        self, conn: AsyncConnection, import_id: str, known: Mapping[str, dict[str, Any]], counts: Mapping[str, int]
    ) -> int:
        changes, n_more = [], 0
        for fingerprint, row in known.items():
            in_import = counts[fingerprint] + (row["import_count"] if row["import_id"] == import_id else 0)
            multiplicity = max(row["multiplicity"], in_import)
            n_more += multiplicity - row["multiplicity"]
            changes.append(
                {"id": row["problem_id"], "import_id": import_id, "n": in_import, "multiplicity": multiplicity}
            )
        if changes:
            statement = (
                update(problems)
                .where(problems.c.problem_id == bindparam("id"))
                .values(import_id=bindparam("import_id"), import_count=bindparam("n"))
                .values(multiplicity=bindparam("multiplicity"))
            )
            await conn.execute(statement, changes)
        return n_more

    @writes
    async def log_import(self, conn: AsyncConnection, report: ImportReport, now: dt.datetime) -> None:
        """Keep what an import did."""
        await conn.execute(
            insert(imports).values(
                import_id=report.import_id,
                problem_set=report.problem_set,
                report=report.model_dump(mode="json"),
                created_at=now,
            )
        )

    @reads
    async def page(
        self, conn: AsyncConnection, name: str, after: int, limit: int, tag: str | None, search: str | None
    ) -> list[Problem]:
        """Problems of a set by ordinal, above `after`."""
        _present(name, await _set(conn, name))
        c = problems.c
        wanted: list[ColumnElement[bool]] = [c.problem_set == name, c.ordinal > after]
        if search:
            wanted.append(c.prompt.icontains(orjson.dumps(search).decode()[1:-1], autoescape=True))
        if tag:
            each = func.json_each if conn.dialect.name == "sqlite" else func.json_array_elements_text
            tags = each(c.tags).table_valued("value")
            wanted.append(exists().select_from(tags).where(tags.c.value == tag))
        query = select(problems).where(*wanted).order_by(c.ordinal).limit(limit)
        return [problem_from_row(row) for row in rows_as_dicts(await conn.execute(query))]

    @reads
    async def get(self, conn: AsyncConnection, name: str, ordinal: int) -> Problem:
        """One problem by its place in the set."""
        query = select(problems).where(problems.c.problem_set == name, problems.c.ordinal == ordinal)
        rows = rows_as_dicts(await conn.execute(query))
        if not rows:
            found = _present(name, await _set(conn, name))
            raise NotFound(f"problem set {name!r} has no problem {ordinal}; its ordinals end at {found.n_problems - 1}")
        return problem_from_row(rows[0])


def problem_from_row(row: dict[str, Any]) -> Problem:
    """A problem from a full row of its table."""
    return Problem.model_validate({**row, "prompt": orjson.loads(row["prompt"])})


def _row(
    draft: ProblemDraft, found: ProblemSet, ordinal: int, n: int, import_id: str, now: dt.datetime
) -> dict[str, Any]:
    return {
        "problem_set": found.name,
        "ordinal": ordinal,
        "fingerprint": draft.fingerprint,
        "prompt": orjson.dumps(draft.prompt).decode(),
        "answer": draft.answer,
        "grader": draft.grader or found.grader,
        "tags": list(draft.tags),
        "source": draft.source,
        "solution": draft.solution,
        "multiplicity": n,
        "state": ProblemState.READY,
        "flag": None,
        "flag_detail": None,
        "import_id": import_id,
        "import_count": n,
        "holdout_key": int(draft.fingerprint[:4], 16),
        "created_at": now,
    }


async def _set(conn: AsyncConnection, name: str, *, lock: bool = False) -> ProblemSet | None:
    query = select(problem_sets).where(problem_sets.c.name == name)
    row = (await conn.execute(query.with_for_update() if lock else query)).mappings().first()
    return None if row is None else ProblemSet.model_validate(dict(row))


def _present(name: str, found: ProblemSet | None) -> ProblemSet:
    if found is None:
        raise NotFound(f"there is no problem set {name!r}; import one with `paced import FILE --set {name}`")
    return found
