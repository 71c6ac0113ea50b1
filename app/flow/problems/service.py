"""Creating problem sets and importing files into them."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile

import structlog

from app.clock import Clock
from app.errors import Conflict, Invalid
from app.flow.problems.drafts import ProblemDraft, ReadOptions, RowRefused, UnreadableFile
from app.flow.problems.readers import ImportStream, read_problems
from app.flow.problems.store import ProblemStore
from app.ids import new_id
from paced.wire import ImportReport, Problem, ProblemSet, ProblemSetCreate, Refusal

log = structlog.get_logger()
CHUNK_ROWS = 2000
MAX_REFUSALS = 1000


@dataclass(slots=True)
class _Tally:
    n_rows: int = 0
    n_imported: int = 0
    n_twins: int = 0
    refusals: list[RowRefused] = field(default_factory=list)
    n_refused: int = 0


class ProblemService:
    """Stage 1 of the flow."""

    def __init__(self, store: ProblemStore, clock: Clock, spool: Path) -> None:
        self._store = store
        self._clock = clock
        self._spool = spool

    async def create_set(self, body: ProblemSetCreate) -> ProblemSet:
        """Create a set; the same one again is returned, another of that name refused."""
        wanted = ProblemSet(**body.model_dump(), n_problems=0, n_flagged=0, n_rows=0, created_at=self._clock())
        stored = await self._store.create_set(wanted)
        if ProblemSetCreate(**stored.model_dump(include=set(ProblemSetCreate.model_fields))) != body:
            raise Conflict(
                f"there is a problem set {body.name!r} with grader {stored.grader!r} and another description or policy; "
                "take another name",
                code="already_exists",
            )
        return stored

    async def get_set(self, name: str) -> ProblemSet:
        """One set."""
        return await self._store.get_set(name)

    async def sets(self, after: str | None, limit: int) -> list[ProblemSet]:
        """Sets by name."""
        return await self._store.sets(after, limit)

    async def problems(
        self, name: str, after: int | None, limit: int, tag: str | None, search: str | None
    ) -> list[Problem]:
        """Problems of a set by ordinal."""
        return await self._store.page(name, -1 if after is None else after, limit, tag, search)

    async def problem(self, name: str, ordinal: int) -> Problem:
        """One problem."""
        return await self._store.get(name, ordinal)

    async def import_file(
        self, name: str, file_name: str, options: ReadOptions, body: AsyncIterator[bytes]
    ) -> ImportReport:
        """Read an uploaded file row by row; good rows are kept whatever the others are.

        Each chunk is one transaction: an interrupted import leaves whole chunks, and importing the file
        again adds only what is missing.
        """
        await self._store.get_set(name)
        started = time.perf_counter()
        self._spool.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=self._spool, prefix="import-") as file:
            async for chunk in body:
                await asyncio.to_thread(file.write, chunk)
            file.flush()
            report = await self._read(name, file_name, options, Path(file.name), started)
        await self._store.log_import(report, self._clock())
        log.info("imported", **report.model_dump(exclude={"refusals"}))
        return report

    async def _read(self, name: str, file_name: str, options: ReadOptions, path: Path, started: float) -> ImportReport:
        import_id, tally = new_id("imp"), _Tally()
        try:
            stream = await asyncio.to_thread(read_problems, path, file_name, options)
            rows = iter(stream)
            while chunk := await asyncio.to_thread(_take, rows):
                await self._add(name, import_id, chunk, tally)
        except UnreadableFile as error:
            raise Invalid(f"{file_name}: {error.reason}", code=error.code, file=file_name) from error
        return _report(name, file_name, import_id, stream, tally, time.perf_counter() - started)

    async def _add(self, name: str, import_id: str, chunk: list[ProblemDraft | RowRefused], tally: _Tally) -> None:
        drafts = [row for row in chunk if isinstance(row, ProblemDraft)]
        refused = [row for row in chunk if isinstance(row, RowRefused)]
        n_new = await self._store.add(name, import_id, drafts, self._clock()) if drafts else 0
        tally.n_rows += len(chunk)
        tally.n_imported += n_new
        tally.n_twins += len(drafts) - n_new
        tally.n_refused += len(refused)
        tally.refusals += refused[: MAX_REFUSALS - len(tally.refusals)]


def _take(rows: Iterator[ProblemDraft | RowRefused]) -> list[ProblemDraft | RowRefused]:
    return list(islice(rows, CHUNK_ROWS))


def _report(
    name: str, file_name: str, import_id: str, stream: ImportStream, tally: _Tally, duration_s: float
) -> ImportReport:
    refusals = [Refusal(file=file_name, line=row.line, code=row.code, reason=row.reason) for row in tally.refusals]
    return ImportReport(
        import_id=import_id,
        problem_set=name,
        file=file_name,
        format=stream.format,
        shape=stream.shape,
        n_rows=tally.n_rows,
        n_imported=tally.n_imported,
        n_twins=tally.n_twins,
        n_refused=tally.n_refused,
        refusals=refusals,
        is_refusals_cut=tally.n_refused > len(refusals),
        duration_s=duration_s,
    )
