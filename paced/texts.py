"""Problem texts kept on this side, each with its ETag, so that a batch need carry ids only."""

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from paced import wire

FRESH_S: Final = 600.0
MAX_TEXTS: Final = 200_000
TRIM_EVERY: Final = 20_000  # looking for the oldest reads them all
_TABLE = """
CREATE TABLE IF NOT EXISTS texts (
    curriculum_id TEXT, problem_id INTEGER, etag TEXT NOT NULL, body TEXT NOT NULL, checked_at REAL NOT NULL,
    PRIMARY KEY (curriculum_id, problem_id)
) WITHOUT ROWID
"""
_FIND = """
SELECT problem_id, etag, body, checked_at FROM texts
WHERE curriculum_id = ? AND problem_id IN (SELECT value FROM json_each(?))
"""
_TRIM = """
DELETE FROM texts WHERE checked_at <= (SELECT checked_at FROM texts ORDER BY checked_at DESC LIMIT 1 OFFSET ?)
"""
_PROBLEMS = TypeAdapter(list[wire.BatchProblem])


class Texts:
    """A store in memory, or in a file that processes share; it asks again about texts older than ten minutes.

    Kept by curriculum, whose ids are never given twice: another service at the same address cannot be mistaken for it.
    """

    def __init__(self, file: Path | None = None, now: Callable[[], float] = time.time) -> None:
        self.file = file
        self._now = now
        self._open()

    def _open(self) -> None:
        self._owner, self._lock, self._n_untrimmed = os.getpid(), threading.Lock(), 0
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        place = ":memory:" if self.file is None else self.file
        self._conn = sqlite3.connect(place, timeout=30, isolation_level=None, check_same_thread=False)
        self._conn.execute("PRAGMA journal_mode = WAL")
        self._conn.execute("PRAGMA synchronous = OFF")  # what is lost is asked for again
        self._conn.execute(_TABLE)

    def _of_this_process(self) -> sqlite3.Connection:
        if self._owner != os.getpid():
            self._inherited = self._conn  # never used here: SQLite forbids it after a fork
            self._open()
        return self._conn

    def unknown(self, batch: wire.Batch) -> wire.ProblemTextsQuery | None:
        """What must be asked for before `filled`: texts that are missing or not fresh; None when there are none."""
        found = self._found(batch.curriculum_id, batch.problem_id)
        oldest = self._now() - FRESH_S
        stale = {problem_id: etag for problem_id, (etag, _, checked_at) in found.items() if checked_at < oldest}
        wanted = [problem_id for problem_id in batch.problem_id if problem_id not in found or problem_id in stale]
        return wire.ProblemTextsQuery(problem_ids=wanted, etags=stale) if wanted else None

    def keep(self, curriculum_id: str, asked: wire.ProblemTextsQuery, answer: wire.ProblemTexts) -> None:
        """Store the texts that came; those that did not are as they were."""
        conn, now = self._of_this_process(), self._now()
        rows = [
            (curriculum_id, text.problem_id, text.etag, text.model_dump_json(exclude={"etag"}), now)
            for text in answer.texts
        ]
        unchanged = set(asked.etags) - {text.problem_id for text in answer.texts}
        with self._lock:
            conn.execute("BEGIN IMMEDIATE")
            conn.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?, ?, ?, ?)", rows)
            conn.executemany(
                "UPDATE texts SET checked_at = ? WHERE curriculum_id = ? AND problem_id = ?",
                [(now, curriculum_id, problem_id) for problem_id in unchanged],
            )
            self._n_untrimmed += len(rows)
            if self._n_untrimmed >= TRIM_EVERY:
                conn.execute(_TRIM, (MAX_TEXTS,))
                self._n_untrimmed = 0
            conn.execute("COMMIT")

    def filled(self, batch: wire.Batch) -> wire.Batch:
        """The batch with its texts; raises KeyError for one that is neither kept nor asked for."""
        found = self._found(batch.curriculum_id, batch.problem_id)
        bodies = ",".join(found[problem_id][1] for problem_id in batch.problem_id)
        return batch.model_copy(update={"problems": _PROBLEMS.validate_json(f"[{bodies}]")})

    def _found(self, curriculum_id: str, problem_ids: Iterable[int]) -> dict[int, tuple[str, str, float]]:
        conn = self._of_this_process()
        with self._lock:
            rows = conn.execute(_FIND, (curriculum_id, json.dumps(list(problem_ids)))).fetchall()
        return {problem_id: (etag, body, checked_at) for problem_id, etag, body, checked_at in rows}

    def close(self) -> None:
        """Close the file; whoever asks for texts after that gets sqlite3.ProgrammingError."""
        if self._owner == os.getpid():
            with self._lock:  # SQLite crashes where a connection is closed under a thread that reads
                self._conn.close()
