"""Creating problem sets and importing files into them."""

import asyncio
import datetime as dt
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

import orjson
import structlog

from app.clock import Clock
from app.errors import Conflict, Invalid
from app.flow.problems.decisions import DecisionStore
from app.flow.problems.importing import Importing, ImportOptions
from app.flow.problems.intake import Place
from app.flow.problems.reading.drafts import MIB, UnreadableFile
from app.flow.problems.reading.readers import read_problems
from app.flow.problems.store import ProblemStore
from app.ids import new_id
from paced.wire import Decision, ImportReport, Problem, ProblemDecision, ProblemSet, ProblemSetCreate

log = structlog.get_logger()
MAX_UPLOAD_S = 24 * 3600
_UNLOGGED = {"refusals", "conflicts", "overlaps", "near_twins", "preview"}


class ProblemService:
    """Stage 1 of the flow."""

    def __init__(self, store: ProblemStore, decisions: DecisionStore, clock: Clock, spool: Path) -> None:
        self._store = store
        self._decisions = decisions
        self._clock = clock
        self._spool = spool

    async def create_set(self, body: ProblemSetCreate) -> ProblemSet:
        """Create a set; the same one again is returned, another of that name refused."""
        wanted = ProblemSet(**body.model_dump(), n_problems=0, n_flagged=0, n_rows=0, created_at=self._clock())
        stored = await self._store.create_set(wanted)
        if ProblemSetCreate(**stored.model_dump(include=set(ProblemSetCreate.model_fields))) != body:
            raise Conflict(
                f"there is a problem set {body.name!r} with grader {stored.grader!r} and another description or "
                "policy; take another name",
                code="already_exists",
            )
        return stored

    async def get_set(self, name: str) -> ProblemSet:
        """One set."""
        return await self._store.get_set(name)

    async def imported_at(self, name: str) -> dt.datetime | None:
        """When a file was last imported into a set."""
        return await self._store.imported_at(name)

    async def sets(self, after: str | None, limit: int) -> list[ProblemSet]:
        """Sets by name."""
        return await self._store.sets(after, limit)

    async def problems(self, name: str, after: int | None, limit: int, **wanted: str | None) -> list[Problem]:
        """Problems of a set by ordinal; `wanted` as in the store's `page`."""
        return await self._store.page(name, -1 if after is None else after, limit, **wanted)

    async def problem(self, name: str, ordinal: int) -> Problem:
        """One problem."""
        return await self._store.get(name, ordinal)

    async def texts(self, problem_ids: list[int], etags: dict[int, str]) -> bytes:
        """ProblemTexts as JSON, without the texts that still have the ETag given; no object an item."""
        rows = await self._store.by_id(list(dict.fromkeys(problem_ids)))
        tagged = ({**row, "etag": _etag(row)} for row in rows)
        return orjson.dumps({"texts": [row for row in tagged if etags.get(row["problem_id"]) != row["etag"]]})

    async def decide(self, name: str, ordinal: int, body: ProblemDecision) -> Problem:
        """Serve, set aside or leave out a problem; leases and draws follow from the next one on."""
        problem = await self._decisions.decide(name, ordinal, body, self._clock())
        log.info("decided", problem_set=name, ordinal=ordinal, state=body.state.value, by=body.decided_by)
        return problem

    async def decisions(self, name: str, after: int | None, limit: int) -> list[Decision]:
        """Who decided what about the problems of a set, oldest first."""
        return await self._decisions.page(name, -1 if after is None else after, limit)

    async def decisions_on(self, name: str, ordinal: int) -> list[Decision]:
        """Who decided what about one problem, newest first."""
        return await self._decisions.of_problem(name, ordinal)

    async def import_file(
        self, name: str, file_name: str, options: ImportOptions, body: AsyncIterator[bytes]
    ) -> ImportReport:
        """Read an uploaded file row by row; good rows are kept whatever the others are.

        Each chunk is one transaction: an interrupted import leaves whole chunks, and importing the file
        again adds only what is missing. A dry run stores nothing and needs no set.
        """
        if not options.is_dry_run:
            await self._store.get_set(name)
        started = time.perf_counter()
        await asyncio.to_thread(_sweep, self._spool)
        with NamedTemporaryFile(dir=self._spool, prefix="import-") as file:
            await _spool(body, file)
            uploaded_s = time.perf_counter() - started
            report = await self._read(name, file_name, options, Path(file.name), started)
        if not options.is_dry_run:
            await self._store.log_import(report, self._clock())
        log.info("imported", uploaded_s=round(uploaded_s, 3), **report.model_dump(exclude=_UNLOGGED))
        return report

    async def _places(self, name: str, options: ImportOptions) -> dict[str, Place]:
        """Where benchmark sets hold a fingerprint; one that is to be excluded wins over one to be reported."""
        if name in options.exclude_overlap | options.report_overlap:
            raise Invalid(f"problem set {name!r} cannot be its own benchmark; name another set", code="own_overlap")
        places: dict[str, Place] = {}
        for names in (options.report_overlap, options.exclude_overlap):
            places |= await self._store.places(sorted(names)) if names else {}
        return places

    async def _read(
        self, name: str, file_name: str, options: ImportOptions, path: Path, started: float
    ) -> ImportReport:
        places = await self._places(name, options)
        try:
            stream = await asyncio.to_thread(read_problems, path, file_name, options.read)
            importing = Importing(self._store, self._clock, name, new_id("imp"), stream, options, places)
            await importing.run()
        except UnreadableFile as error:
            raise Invalid(f"{file_name}: {error.reason}", code=error.code, file=file_name) from error
        return importing.report(file_name, time.perf_counter() - started)


def _etag(text: dict[str, Any]) -> str:
    return hashlib.blake2b(orjson.dumps(text, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()


def _sweep(spool: Path) -> None:
    """Make the folder of uploads, and remove what a killed process left there."""
    spool.mkdir(parents=True, exist_ok=True)
    oldest = time.time() - MAX_UPLOAD_S
    for left in spool.glob("import-*"):
        with suppress(FileNotFoundError):  # an import that has just ended
            if left.stat().st_mtime < oldest:
                left.unlink()


async def _spool(body: AsyncIterator[bytes], file: IO[bytes]) -> None:
    """Write an upload in large pieces: each costs a hop to a thread."""
    held = bytearray()
    async for part in body:
        held += part
        if len(held) >= MIB:
            await asyncio.to_thread(file.write, bytes(held))
            held.clear()
    await asyncio.to_thread(file.write, bytes(held))
    await asyncio.to_thread(file.flush)
