"""The rows of an import, gathered into chunks: what is seen first, what repeats, what contradicts."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from .flags import Found, find_flag
from .reading.drafts import MIB, ProblemDraft, RowRefused
from .spelling import answer_key

CHUNK_ROWS = 500_000
CHUNK_DISTINCT = 25_000
CHUNK_DRAFTS = 5_000
CHUNK_CHARS = 32 * MIB
MAX_SEEN = 500_000
Place = tuple[str, int]  # problem set and ordinal


@dataclass(frozen=True, slots=True)
class Rival:
    """A row of this import whose answer is not that of the first row with the same text."""

    fingerprint: str
    line: int
    answer: str
    first_line: int
    first_answer: str


@dataclass(slots=True)
class Chunk:
    """Rows that are stored in one transaction.

    `drafts` are those that this import meets first, by fingerprint; `counts` tells for each fingerprint in the chunk
    how many rows carry it; `flags` why a draft cannot be judged; `places` where a benchmark set holds it.
    """

    n_rows: int = 0
    drafts: dict[str, ProblemDraft] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    refused: list[RowRefused] = field(default_factory=list)
    rivals: list[Rival] = field(default_factory=list)
    flags: dict[str, Found] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    n_chars: int = 0

    @property
    def is_full(self) -> bool:
        """Whether one more row would make the transaction long or the chunk large."""
        is_long = self.n_rows >= CHUNK_ROWS or len(self.counts) >= CHUNK_DISTINCT
        return is_long or len(self.drafts) >= CHUNK_DRAFTS or self.n_chars >= CHUNK_CHARS

    def keep(self, draft: ProblemDraft, benchmarks: Mapping[str, Place]) -> None:
        """Hold a draft, with what its text says about it."""
        fingerprint = draft.fingerprint
        self.drafts[fingerprint] = draft
        self.n_chars += _n_chars(draft)
        self.flags.pop(fingerprint, None)
        found = find_flag(draft.prompt, draft.answer)
        if found:
            self.flags[fingerprint] = found
        if fingerprint in benchmarks:
            self.places[fingerprint] = benchmarks[fingerprint]

    def merge_into(self, fingerprint: str, other: str) -> None:
        """Count a near-twin's rows as those of an earlier problem, and their answers as its rivals."""
        self.drafts.pop(fingerprint, None)
        self.flags.pop(fingerprint, None)
        self.places.pop(fingerprint, None)
        self.counts[other] += self.counts.pop(fingerprint, 0)
        self.rivals = [
            replace(rival, fingerprint=other) if rival.fingerprint == fingerprint else rival for rival in self.rivals
        ]


class Intake:
    """Chunks of one file. Rows seen before are counted, not kept: memory holds the new problems of one chunk.

    What it remembers of the first `MAX_SEEN` distinct rows is their line and answer. `benchmarks` are the
    fingerprints of sets that training must not see.
    """

    def __init__(self, rows: Iterator[ProblemDraft | RowRefused], benchmarks: Mapping[str, Place]) -> None:
        self._rows = rows
        self._benchmarks = benchmarks
        self._seen: dict[str, tuple[int, str]] = {}
        self._rival_keys: set[tuple[str, str]] = set()

    def take(self) -> Chunk:
        """The next chunk; one without rows at the end of the file."""
        chunk, seen = Chunk(), self._seen
        counts = chunk.counts
        for row in self._rows:
            chunk.n_rows += 1
            if type(row) is not ProblemDraft:
                chunk.refused.append(cast("RowRefused", row))
            else:
                fingerprint = row.fingerprint
                n = counts.get(fingerprint, 0)
                counts[fingerprint] = n + 1
                first = seen.get(fingerprint)
                if n and first is not None and row.answer == first[1] and chunk.n_rows < CHUNK_ROWS:
                    continue
                if first is None:
                    self._meet(chunk, row)
                elif row.answer != first[1]:
                    self._compare(chunk, row, *first)
            if chunk.is_full:
                break
        return chunk

    def _meet(self, chunk: Chunk, draft: ProblemDraft) -> None:
        if draft.fingerprint in chunk.drafts:  # only where no more is remembered
            return
        chunk.keep(draft, self._benchmarks)
        if len(self._seen) < MAX_SEEN:
            self._seen[draft.fingerprint] = (draft.line, draft.answer)

    def _compare(self, chunk: Chunk, draft: ProblemDraft, first_line: int, first_answer: str) -> None:
        fingerprint = draft.fingerprint
        if not draft.answer:
            return
        if not first_answer:
            self._seen[fingerprint] = (draft.line, draft.answer)
            chunk.keep(draft._replace(line=first_line), self._benchmarks)
            return
        key = answer_key(draft.answer)
        if key == answer_key(first_answer) or (fingerprint, key) in self._rival_keys:
            return
        if len(self._rival_keys) < MAX_SEEN:
            self._rival_keys.add((fingerprint, key))
        chunk.rivals.append(Rival(fingerprint, draft.line, draft.answer, first_line, first_answer))


def _n_chars(draft: ProblemDraft) -> int:
    prompt = draft.prompt
    n = len(prompt) if isinstance(prompt, str) else sum(len(turn["content"]) for turn in prompt)
    return n + len(draft.answer) + len(draft.solution or "")
