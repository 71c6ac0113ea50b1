"""One import at work: chunks are read in a thread while the one before is stored, and a report is kept."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from app.clock import Clock
from app.flow.problems.intake import Chunk, Intake, Place
from app.flow.problems.merging import Changes, Stamp, problem_row
from app.flow.problems.near import MAX_INDEXED, NearIndex
from app.flow.problems.reading.drafts import ReadOptions, RowRefused
from app.flow.problems.reading.readers import ImportStream
from app.flow.problems.store import ProblemStore
from paced.wire import (
    AnswerConflict,
    GradingPolicy,
    ImportReport,
    NearTwin,
    NearTwins,
    Overlap,
    ProblemPreview,
    ProblemSet,
    Refusal,
)

MAX_LISTED = 1000
MAX_PAIRS = 200
N_PREVIEWED = 5
_MANY_FLAGGED = 0.5
_TEXTS = 5000


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to read a file, and what to do with what it holds."""

    read: ReadOptions = field(default_factory=ReadOptions)
    is_dry_run: bool = False
    near_twins: NearTwins = NearTwins.REPORT
    exclude_overlap: frozenset[str] = frozenset()
    report_overlap: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Tally:
    n_rows: int = 0
    n_imported: int = 0
    n_refused: int = 0
    n_near: int = 0
    n_conflicts: int = 0
    n_overlaps: int = 0
    n_answered: int = 0
    refused: list[RowRefused] = field(default_factory=list)
    flags: Counter[str] = field(default_factory=Counter)
    conflicts: list[AnswerConflict] = field(default_factory=list)
    overlaps: list[Overlap] = field(default_factory=list)
    pairs: list[NearTwin] = field(default_factory=list)
    preview: list[ProblemPreview] = field(default_factory=list)


class Importing:
    """Stores the rows of one file in a set, or, in a dry run, finds what storing them would do."""

    def __init__(
        self,
        store: ProblemStore,
        clock: Clock,
        name: str,
        import_id: str,
        stream: ImportStream,
        options: ImportOptions,
        places: dict[str, Place],
    ) -> None:
        self._store = store
        self._clock = clock
        self._name = name
        self._import_id = import_id
        self._stream = stream
        self._options = options
        self._intake = Intake(iter(stream), places)
        self._index: NearIndex | None = None
        self._merged: dict[str, str] = {}
        self._added: set[str] = set()
        self._flagged: set[str] = set()
        self._tally = _Tally()

    async def run(self) -> None:
        """Read and store to the end of the file; raises UnreadableFile if there is no row to begin with."""
        reading = asyncio.create_task(asyncio.to_thread(self._intake.take))
        try:
            while (chunk := await reading).n_rows:
                reading = asyncio.create_task(asyncio.to_thread(self._intake.take))
                await self._add(chunk)
        finally:
            # The thread reads a file that the caller is about to remove.
            await asyncio.gather(reading, return_exceptions=True)

    async def _add(self, chunk: Chunk) -> None:
        await self._find_near(chunk)
        stamp = Stamp(self._import_id, self._clock(), self._options.exclude_overlap)
        if self._options.is_dry_run:
            changes = await self._would_add(chunk, stamp)
        else:
            changes = await self._store.add(self._name, chunk, stamp)
        self._count(chunk, changes)

    async def _would_add(self, chunk: Chunk, stamp: Stamp) -> Changes:
        wanted = _empty_set(self._name, stamp)
        changes = await self._store.would_add(wanted, chunk, stamp)
        changes.inserts = [row for row in changes.inserts if row["fingerprint"] not in self._added]
        again = {one.fingerprint for one in changes.conflicts} & self._added
        changes.flagged["conflicting_answers"] += len(again - self._flagged)
        self._flagged |= again
        self._added |= {row["fingerprint"] for row in changes.inserts}
        for draft in list(chunk.drafts.values())[: N_PREVIEWED - len(self._tally.preview)]:
            flags = {row["fingerprint"]: row for row in changes.inserts}
            row = flags.get(draft.fingerprint) or problem_row(draft, wanted, chunk.flags.get(draft.fingerprint))
            self._tally.preview.append(
                ProblemPreview.model_validate({**row, "prompt": draft.prompt, "line": draft.line})
            )
        return changes

    def _count(self, chunk: Chunk, changes: Changes) -> None:
        tally = self._tally
        tally.n_rows += chunk.n_rows
        tally.n_imported += len(changes.inserts)
        tally.n_refused += len(chunk.refused)
        tally.n_conflicts += len(changes.conflicts)
        tally.n_overlaps += len(changes.overlaps)
        tally.n_answered += changes.n_answered
        tally.flags.update(changes.flagged)
        tally.refused += chunk.refused[: MAX_LISTED - len(tally.refused)]
        tally.conflicts += changes.conflicts[: MAX_LISTED - len(tally.conflicts)]
        tally.overlaps += changes.overlaps[: MAX_LISTED - len(tally.overlaps)]

    # -- near-twins

    async def _find_near(self, chunk: Chunk) -> None:
        """Compare the problems that are new to the set with earlier ones; merge those that are asked for."""
        if self._options.near_twins == NearTwins.OFF:
            return
        for fingerprint in [one for one in chunk.counts if one in self._merged]:
            chunk.merge_into(fingerprint, self._merged[fingerprint])
        known = await self._store.stored(self._name, list(chunk.drafts))
        new = [fingerprint for fingerprint in chunk.drafts if fingerprint not in known]
        if new:
            if self._index is None:
                self._index = await self._load_index()
            await asyncio.to_thread(self._match, self._index, chunk, new)

    async def _load_index(self) -> NearIndex:
        index, after = NearIndex(), -1
        while not index.is_full and (rows := await self._store.texts(self._name, after, _TEXTS)):
            await asyncio.to_thread(_index, index, rows)
            after = rows[-1]["ordinal"]
        return index

    def _match(self, index: NearIndex, chunk: Chunk, new: list[str]) -> None:
        merge = self._options.near_twins == NearTwins.MERGE
        for fingerprint in new:
            # A problem of a benchmark is not merged: its own flag would be lost.
            found = index.match(chunk.drafts[fingerprint], merge=merge and fingerprint not in chunk.places)
            if not found:
                continue
            pair, other = found
            self._tally.n_near += 1
            if self._options.near_twins != NearTwins.KEEP and len(self._tally.pairs) < MAX_PAIRS:
                self._tally.pairs.append(pair)
            if pair.is_merged:
                self._merged[fingerprint] = other
                chunk.merge_into(fingerprint, other)

    # -- report

    def report(self, file_name: str, duration_s: float) -> ImportReport:
        """What was done so far."""
        tally = self._tally
        refusals = [Refusal(file=file_name, line=row.line, code=row.code, reason=row.reason) for row in tally.refused]
        return ImportReport(
            import_id=self._import_id,
            problem_set=self._name,
            file=file_name,
            format=self._stream.format,
            shape=self._stream.shape,
            is_dry_run=self._options.is_dry_run,
            n_rows=tally.n_rows,
            n_imported=tally.n_imported,
            n_twins=tally.n_rows - tally.n_imported - tally.n_refused,
            n_refused=tally.n_refused,
            refusals=refusals,
            is_refusals_cut=tally.n_refused > len(refusals),
            n_flagged=tally.flags.total(),
            n_answered=tally.n_answered,
            flags={flag: n for flag, n in tally.flags.items() if n},
            n_conflicts=tally.n_conflicts,
            conflicts=tally.conflicts,
            n_overlaps=tally.n_overlaps,
            overlaps=tally.overlaps,
            n_near_twins=tally.n_near,
            near_twins=tally.pairs,
            warnings=self._warnings(),
            preview=tally.preview,
            duration_s=duration_s,
        )

    def _warnings(self) -> list[str]:
        tally = self._tally
        warnings = list(self._stream.notes)
        if tally.n_imported and tally.flags.total() > _MANY_FLAGGED * tally.n_imported:
            most, n = tally.flags.most_common(1)[0]
            warnings.append(
                f"{n} of {tally.n_imported} new problems are flagged {most} and will not be served; "
                "if another field holds the answer, name it (answer_field)"
            )
        if tally.n_rows and tally.n_refused > _MANY_FLAGGED * tally.n_rows:
            warnings.append(f"{tally.n_refused} of {tally.n_rows} rows were refused; the first says why")
        if self._index is not None and self._index.is_full:
            warnings.append(f"near-twins were looked for among {MAX_INDEXED} problems only")
        return warnings


def _index(index: NearIndex, rows: list[dict[str, object]]) -> None:
    for row in rows:
        index.add_stored(**row)  # type: ignore[arg-type]


def _empty_set(name: str, stamp: Stamp) -> ProblemSet:
    return ProblemSet(
        name=name,
        description="",
        grader="math",
        policy=GradingPolicy(),
        n_problems=0,
        n_flagged=0,
        n_rows=0,
        created_at=stamp.now,
    )
