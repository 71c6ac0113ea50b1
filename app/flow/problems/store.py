"""Problem sets and problems in the database."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Select, bindparam, exists, func, insert, select, update

from app.db.engine import Database
from app.db.tables import imports, problem_sets, problems
from app.db.transaction import reads, rows_as_dicts, rows_in, writes
from app.errors import NotFound
from app.flow.problems.intake import Chunk
from app.flow.problems.merging import Changes, Stamp, merge
from paced.wire import ImportReport, Problem, ProblemSet

_RAISE_MULTIPLICITY = (
    update(problems)
    .where(problems.c.problem_id == bindparam("id"))
    .values(import_id=bindparam("at_import"), import_count=bindparam("n"), multiplicity=bindparam("at_most"))
)
_CHANGE_STATE = (
    update(problems)
    .where(problems.c.problem_id == bindparam("id"))
    .values(state=bindparam("new_state"), flag=bindparam("new_flag"), flag_detail=bindparam("new_detail"))
    .values(answer=bindparam("new_answer"), solution=bindparam("new_solution"), state_version=bindparam("new_version"))
)


class ProblemStore:
    """Every statement on problem sets and problems."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @writes
    def create_set(self, conn: Connection, wanted: ProblemSet) -> ProblemSet:
        """Store a set, or return the one of that name."""
        known = _set(conn, wanted.name)
        if known is not None:
            return known
        conn.execute(insert(problem_sets).values(**{**wanted.model_dump(), "policy": wanted.policy.model_dump()}))
        return wanted

    @reads
    def get_set(self, conn: Connection, name: str) -> ProblemSet:
        """One set; NotFound when there is none."""
        return _present(name, _set(conn, name))

    @reads
    def sets(self, conn: Connection, after: str | None, limit: int) -> list[ProblemSet]:
        """Sets by name."""
        query = select(problem_sets).order_by(problem_sets.c.name).limit(limit)
        if after is not None:
            query = query.where(problem_sets.c.name > after)
        return [ProblemSet.model_validate(row) for row in rows_as_dicts(conn.execute(query))]

    @writes
    def add(self, conn: Connection, name: str, chunk: Chunk, stamp: Stamp) -> Changes:
        """Store one chunk of an import, in one transaction; returns what it changed."""
        found = _present(name, _set(conn, name, lock=True))
        version = int(conn.execute(_version(name)).scalar_one())
        changes = merge(found, version, _known(conn, name, list(chunk.counts)), chunk, stamp)
        if changes.inserts:
            conn.execute(insert(problems), changes.inserts)
        if changes.counts:
            conn.execute(_RAISE_MULTIPLICITY, changes.counts)
        if changes.states:
            conn.execute(_CHANGE_STATE, changes.states)
        s = problem_sets.c
        totals = {
            "n_problems": s.n_problems + len(changes.inserts),
            "n_flagged": s.n_flagged + changes.n_more_flagged,
            "n_rows": s.n_rows + changes.n_more_rows,
            "state_version": version + bool(changes.states),
        }
        conn.execute(update(problem_sets).where(s.name == name).values(**totals))
        return changes

    @reads
    def would_add(self, conn: Connection, wanted: ProblemSet, chunk: Chunk, stamp: Stamp) -> Changes:
        """What storing a chunk would change; the set need not exist."""
        found = _set(conn, wanted.name) or wanted
        return merge(found, 0, _known(conn, wanted.name, list(chunk.counts)), chunk, stamp)

    @reads
    def stored(self, conn: Connection, name: str, fingerprints: Sequence[str]) -> set[str]:
        """Which of the fingerprints the set holds."""
        c = problems.c
        query = select(c.fingerprint).where(c.problem_set == name)
        return {row["fingerprint"] for row in rows_in(conn, query, c.fingerprint, fingerprints)}

    @reads
    def places(self, conn: Connection, names: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Set and ordinal of every problem of some sets, by fingerprint; NotFound for a set that is not there."""
        for name in names:
            _present(name, _set(conn, name))
        c = problems.c
        query = select(c.fingerprint, c.problem_set, c.ordinal).where(c.problem_set.in_(names))
        return {row.fingerprint: (row.problem_set, row.ordinal) for row in conn.execute(query)}

    @reads
    def texts(self, conn: Connection, name: str, after: int, limit: int) -> list[dict[str, Any]]:
        """Fingerprint, ordinal, prompt and answer of a set's problems by ordinal, above `after`."""
        c = problems.c
        query = select(c.fingerprint, c.ordinal, c.prompt, c.answer).where(c.problem_set == name, c.ordinal > after)
        rows = rows_as_dicts(conn.execute(query.order_by(c.ordinal).limit(limit)))
        return [{**row, "prompt": orjson.loads(row["prompt"])} for row in rows]

    @reads
    def by_id(self, conn: Connection, problem_ids: Sequence[int]) -> list[dict[str, Any]]:
        """What a trainer needs of some problems, in the order asked for; ids that no problem has are left out."""
        c = problems.c
        query = select(c.problem_id, c.prompt, c.answer, c.grader, c.solution, c.tags)
        found = {row["problem_id"]: row for row in rows_in(conn, query, c.problem_id, problem_ids)}
        rows = [found[problem_id] for problem_id in problem_ids if problem_id in found]
        return [{**row, "prompt": orjson.loads(row["prompt"])} for row in rows]

    @writes
    def log_import(self, conn: Connection, report: ImportReport, now: dt.datetime) -> None:
        """Keep what an import did."""
        conn.execute(
            insert(imports).values(
                import_id=report.import_id,
                problem_set=report.problem_set,
                report=report.model_dump(mode="json"),
                created_at=now,
            )
        )

    @reads
    def imported_at(self, conn: Connection, name: str) -> dt.datetime | None:
        """When a file was last imported into a set."""
        query = select(func.max(imports.c.created_at)).where(imports.c.problem_set == name)
        return conn.execute(query).scalar()

    @reads
    def page(
        self,
        conn: Connection,
        name: str,
        after: int,
        limit: int,
        *,
        tag: str | None = None,
        search: str | None = None,
        state: str | None = None,
    ) -> list[Problem]:
        """Problems of a set by ordinal, above `after`: with a tag, a text in their prompt, a state."""
        _present(name, _set(conn, name))
        c = problems.c
        wanted: list[ColumnElement[bool]] = [c.problem_set == name, c.ordinal > after]
        if state:
            wanted.append(c.state == state)
        if search:
            wanted.append(prompt_holds(search))
        if tag:
            wanted.append(has_tag(conn, [tag]))
        query = select(problems).where(*wanted).order_by(c.ordinal).limit(limit)
        return [problem_from_row(row) for row in rows_as_dicts(conn.execute(query))]

    @reads
    def get(self, conn: Connection, name: str, ordinal: int) -> Problem:
        """One problem by its place in the set."""
        query = select(problems).where(problems.c.problem_set == name, problems.c.ordinal == ordinal)
        rows = rows_as_dicts(conn.execute(query))
        if not rows:
            found = _present(name, _set(conn, name))
            raise NotFound(f"problem set {name!r} has no problem {ordinal}; its ordinals end at {found.n_problems - 1}")
        return problem_from_row(rows[0])


def prompt_holds(text: str) -> ColumnElement[bool]:
    """Problems whose prompt holds a text, in any case; a prompt is stored as JSON."""
    return problems.c.prompt.icontains(orjson.dumps(text).decode()[1:-1], autoescape=True)


def has_tag(conn: Connection, tags: Sequence[str]) -> ColumnElement[bool]:
    """Problems with any of the tags."""
    each = func.json_each if conn.dialect.name == "sqlite" else func.json_array_elements_text
    theirs = each(problems.c.tags).table_valued("value")
    return exists().select_from(theirs).where(theirs.c.value.in_(tags))


def problem_from_row(row: dict[str, Any]) -> Problem:
    """A problem from a full row of its table."""
    return Problem.model_validate({**row, "prompt": orjson.loads(row["prompt"])})


def _known(conn: Connection, name: str, fingerprints: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The set's rows of these fingerprints."""
    c = problems.c
    state = (c.state, c.flag, c.answer, c.solution)
    query = select(c.fingerprint, c.problem_id, c.import_id, c.import_count, c.multiplicity, *state)
    rows = rows_in(conn, query.where(c.problem_set == name), c.fingerprint, fingerprints)
    return {row["fingerprint"]: row for row in rows}


def _version(name: str) -> Select[Any]:
    return select(problem_sets.c.state_version).where(problem_sets.c.name == name)


def _set(conn: Connection, name: str, *, lock: bool = False) -> ProblemSet | None:
    query = select(problem_sets).where(problem_sets.c.name == name)
    row = conn.execute(query.with_for_update() if lock else query).mappings().first()
    return None if row is None else ProblemSet.model_validate(dict(row))


def _present(name: str, found: ProblemSet | None) -> ProblemSet:
    if found is None:
        raise NotFound(f"there is no problem set {name!r}; import one with `paced import FILE --set {name}`")
    return found
