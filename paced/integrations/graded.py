"""Graded answers on their way back: counted by batch, sent as outcomes when the batch has all of its own."""

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from paced import wire
from paced.client import Client
from paced.errors import BatchExpired, Unavailable, Unreachable
from paced.integrations.rows import Ticket

Judge = Callable[[str, str], float]
log = logging.getLogger(__name__)


class Graded:
    """Counts answers of the newest checkpoint of `student`, a reward of at least `passes` as a pass.

    Give it right or wrong, not shaped rewards. A batch is acknowledged, with its outcomes, when `n_answers` have come.
    What lacks some is not sent: it expires, and its problems go back. All answers must come to one process.
    """

    def __init__(self, client: Client, student: str, n_answers: int, *, passes: float = 1.0) -> None:
        self._client, self._student, self._n_answers, self._passes = client, student, n_answers, passes
        self._counts: dict[str, dict[int, Counter[bool]]] = defaultdict(lambda: defaultdict(Counter))
        self._lock = threading.Lock()

    def add(self, ticket: Ticket, reward: float) -> None:
        """Count one answer."""
        with self._lock:
            batch = self._counts[ticket.batch_id]
            batch[ticket.problem_id][reward >= self._passes] += 1
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


def send(client: Client, student: str, batch_id: str, batch: dict[int, Counter[bool]]) -> None:
    """Acknowledge a batch with the passes and fails of its problems; what cannot be counted is logged."""
    latest = client.student(student).latest_checkpoint
    outcomes = [
        wire.Outcome(
            problem_id=problem_id, checkpoint_index=latest.index, n_passed=counts[True], n_failed=counts[False]
        )
        for problem_id, counts in batch.items()
        if latest is not None
    ]
    try:
        client.acknowledge(batch_id, outcomes)
    except BatchExpired as error:
        log.warning("the answers to batch %s came too late to count: %s", batch_id, error.detail)
    except (Unreachable, Unavailable) as error:
        log.warning("batch %s is not acknowledged, its answers are lost: %s", batch_id, error)
