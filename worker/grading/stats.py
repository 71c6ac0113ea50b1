"""What a pool has done: counts by verdict, seconds by grader, and the answers that took longest."""

import heapq
import itertools
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

from paced.wire.grading import Grader, Verdict

from .base import Grade

N_SLOWEST = 10
MAX_HEAD = 200


class SlowAnswer(NamedTuple):
    """An answer that took long to judge: wall seconds, its grader, and how its text begins."""

    seconds: float
    grader: Grader
    head: str


@dataclass(frozen=True)
class PoolStats:
    """A snapshot; `n_graded` counts every finished task, `n_replaced` processes killed or found dead.

    `n_out_of_memory` counts tasks that met the bound of `memory_mb`; seconds count from when a process takes a task.

    `n_by_grader` and `seconds_by_grader` show which grader is slow, `slowest` which answers are, slowest first.
    """

    n_graded: int
    n_timeouts: int
    n_replaced: int
    n_out_of_memory: int
    memory_mb: int
    n_waiting: int
    n_by_verdict: dict[Verdict, int]
    n_by_grader: dict[Grader, int]
    seconds_by_grader: dict[Grader, float]
    slowest: list[SlowAnswer]

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "n_graded": self.n_graded,
            "n_waiting": self.n_waiting,
            "n_replaced": self.n_replaced,
            "n_out_of_memory": self.n_out_of_memory,
            "n_by_verdict": {verdict.value: n for verdict, n in self.n_by_verdict.items()},
            "n_by_grader": {str(grader): n for grader, n in self.n_by_grader.items()},
            "seconds_by_grader": {str(grader): seconds for grader, seconds in self.seconds_by_grader.items()},
            "slowest": [{**slow._asdict(), "grader": str(slow.grader)} for slow in self.slowest],
        }


class Tally:
    """Counts what the pool's threads report; safe from any thread."""

    def __init__(self, memory_mb: int) -> None:
        """Start from nothing; `memory_mb` is the pool's bound."""
        self._memory_mb = memory_mb
        self._n_out_of_memory = 0
        self._lock = threading.Lock()
        self._n_by_verdict: Counter[Verdict] = Counter()
        self._n_by_grader: Counter[Grader] = Counter()
        self._seconds: dict[Grader, float] = {}
        self._n_replaced = 0
        self._order = itertools.count()
        self._heap: list[tuple[float, int, SlowAnswer]] = []

    def add(self, grader: Grader, text: str, grade: Grade) -> None:
        """Count one finished task."""
        with self._lock:
            self._n_by_verdict[grade.verdict] += 1
            self._n_by_grader[grader] += 1
            is_out = grade.verdict is Verdict.GRADER_ERROR and (grade.detail or "").startswith(MemoryError.__name__)
            self._n_out_of_memory += is_out
            self._seconds[grader] = self._seconds.get(grader, 0.0) + grade.seconds
            entry = (grade.seconds, next(self._order), SlowAnswer(grade.seconds, grader, text[:MAX_HEAD]))
            if len(self._heap) < N_SLOWEST:
                heapq.heappush(self._heap, entry)
            else:
                heapq.heappushpop(self._heap, entry)

    def count_replaced(self) -> None:
        """Count one process that was killed or found dead."""
        with self._lock:
            self._n_replaced += 1

    def snapshot(self, n_waiting: int) -> PoolStats:
        """Return the counts of this moment."""
        with self._lock:
            return PoolStats(
                n_graded=self._n_by_verdict.total(),
                n_timeouts=self._n_by_verdict[Verdict.TIMEOUT],
                n_replaced=self._n_replaced,
                n_out_of_memory=self._n_out_of_memory,
                memory_mb=self._memory_mb,
                n_waiting=n_waiting,
                n_by_verdict=dict(self._n_by_verdict),
                n_by_grader=dict(self._n_by_grader),
                seconds_by_grader=dict(self._seconds),
                slowest=[slow for _, _, slow in sorted(self._heap, reverse=True)],
            )
