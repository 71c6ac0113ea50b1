"""Graded answers on their way back: counted by batch, sent as outcomes when the batch has all of its own."""

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from paced import wire
from paced.client import Client
from paced.errors import BatchExpired, Unavailable, Unreachable
from paced.integrations.rows import Ticket

Judge = Callable[[str, str], float]
Counts = Mapping[int, Counter[str]]  # problem id -> how many answers passed, failed, were truncated, had no verdict
log = logging.getLogger(__name__)


class Graded:
    """Counts answers of the newest checkpoint of `student`, a reward of at least `passes` as a pass.

    Give it right or wrong, not shaped rewards. A batch is acknowledged, with its outcomes, when `n_answers` have come.
    What lacks some is not sent: it expires, and its problems go back. All answers must come to one process.
    """

    def __init__(self, client: Client, student: str, n_answers: int, *, passes: float = 1.0) -> None:
        self._client, self._student, self._n_answers, self._passes = client, student, n_answers, passes
        self._counts: dict[str, dict[int, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy in another process begins to count anew."""
        return _copy, (self._client, self._student, self._n_answers, self._passes)

    def add(self, ticket: Ticket, reward: float | None, *, is_truncated: bool = False) -> None:
        """Count one answer; None is one that could not be judged."""
        with self._lock:
            batch = self._counts[ticket.batch_id]
            batch[ticket.problem_id][verdict(reward, self._passes, is_truncated)] += 1
            if sum(counts.total() for counts in batch.values()) < self._n_answers:
                return
            del self._counts[ticket.batch_id]
        send(self._client, self._student, ticket.batch_id, batch)

    def judged(self, judge: Judge, answers: Sequence[str], labels: Sequence[str]) -> list[float]:
        """Judge answers by `judge(answer, reference)`, count them, and return the rewards."""
        tickets = [Ticket.read(label) for label in labels]
        rewards = [float(judge(answer, ticket.answer)) for answer, ticket in zip(answers, tickets, strict=True)]
        for ticket, reward in zip(tickets, rewards, strict=True):
            self.add(ticket, reward)
        return rewards


def _copy(client: Client, student: str, n_answers: int, passes: float) -> Graded:
    return Graded(client, student, n_answers, passes=passes)


def verdict(reward: float | None, passes: float, is_truncated: bool = False) -> str:
    """What an answer counts as; one that was cut off and is right all the same has passed."""
    if reward is None:
        return "unjudged"
    return "passed" if reward >= passes else "truncated" if is_truncated else "failed"


def outcomes(counts: Counts, checkpoint_index: int) -> list[wire.Outcome]:
    """What to acknowledge a batch with; problems without a verdict are left out."""
    return [
        wire.Outcome(
            problem_id=problem_id,
            checkpoint_index=checkpoint_index,
            n_passed=found["passed"],
            n_failed=found["failed"],
            n_truncated=found["truncated"],
        )
        for problem_id, found in counts.items()
        if found["passed"] + found["failed"] + found["truncated"]
    ]


def send(client: Client, student: str, batch_id: str, counts: Counts) -> None:
    """Acknowledge a batch with the counts of its problems; what cannot be sent is logged."""
    try:
        latest = client.student(student).latest_checkpoint
        client.acknowledge(batch_id, [] if latest is None else outcomes(counts, latest.index))
    except BatchExpired as error:
        log.warning("the answers to batch %s came too late to count: %s", batch_id, error.detail)
    except (Unreachable, Unavailable) as error:
        log.warning("batch %s is not acknowledged, its answers are lost: %s", batch_id, error)
