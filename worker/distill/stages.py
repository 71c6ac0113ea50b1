"""When a stage ends, and waiting for others: rollout workers, and the user's wish to stop."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from paced.client import Client
from paced.wire import Measurement, StagePlan
from worker.distill.errors import Interrupted, WaitedTooLong
from worker.distill.ranks import Ranks

POLL_S = 1.0

log = logging.getLogger(__name__)


class Stop:
    """The wish to stop; every wait of a run goes through it."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.signal_number = 0

    def ask(self, signal_number: int = 0) -> None:
        """Stop at the next safe place."""
        self.signal_number = signal_number
        self._event.set()

    @property
    def is_asked(self) -> bool:
        """Whether somebody wishes it."""
        return self._event.is_set()

    def wait(self, duration_s: float) -> None:
        """Wait, or until a stop is asked for."""
        self._event.wait(duration_s)


@dataclass(frozen=True)
class Patience:
    """How long to wait for rollout workers (seconds), and the wish that ends any wait, whichever rank has it."""

    wait_s: float
    stop: Stop
    ranks: Ranks

    def check(self) -> None:
        """Raise Interrupted, on every rank, if a stop was asked for on one."""
        asked = self.ranks.gathered((self.stop.is_asked, self.stop.signal_number))
        if any(is_asked for is_asked, _ in asked):
            raise Interrupted("stopped", max(number for _, number in asked))

    def sleep(self, duration_s: float) -> None:
        """Wait; raises Interrupted as soon as a stop is asked for."""
        self.stop.wait(duration_s)
        self.check()


@contextmanager
def obeying_signals(stop: Stop) -> Iterator[None]:
    """Ctrl-C and SIGTERM finish the step in hand and save; a second one drops it, which loses nothing saved."""

    def obey(number: int, _frame: FrameType | None) -> None:
        if stop.signal_number:
            raise KeyboardInterrupt
        log.warning("stopping after this step; once more to drop it")
        stop.ask(number)

    before = {number: signal.signal(number, obey) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_stage_start(schedule: Sequence[StagePlan], step: int) -> bool:
    """Whether a stage other than the first begins at this step of the run, or the schedule ends there."""
    end = 0
    for plan in schedule:
        if plan.steps is None:
            return False
        end += plan.steps
        if end >= step:
            return end == step and step > 0
    return False


def place(schedule: Sequence[StagePlan], step: int) -> tuple[StagePlan, int]:
    """The stage of a step of the run, and the step with which it begins; of a step after the end, the last stage."""
    first = 0
    for plan in schedule[:-1]:
        if plan.steps is None or step < first + plan.steps:
            return plan, first
        first += plan.steps
    return schedule[-1], first


def wait_until_measured(client: Client, measurement_id: str, checkpoint_index: int, patience: Patience) -> Measurement:
    """Wait until every problem that is not quarantined is measured at a checkpoint, or at a newer one.

    Raises WaitedTooLong, naming the command that starts a worker; Interrupted.
    """
    what = f"every problem to be measured at checkpoint {checkpoint_index}"
    return _wait(client, measurement_id, what, lambda m: _n_measured_at(m, checkpoint_index), patience)


def wait_until_known(client: Client, measurement_id: str, patience: Patience) -> Measurement:
    """Wait until every problem that is not quarantined has been measured once. Raises WaitedTooLong, Interrupted."""
    return _wait(client, measurement_id, "every problem to be measured once", lambda m: m.n_measured, patience)


def _n_measured_at(m: Measurement, checkpoint_index: int) -> int:
    is_seen = m.latest_checkpoint is not None and m.latest_checkpoint.index >= checkpoint_index
    return m.n_at_latest if is_seen else 0


def _wait(
    client: Client,
    measurement_id: str,
    what: str,
    count: Callable[[Measurement], int],
    patience: Patience,
) -> Measurement:
    deadline, is_said = time.monotonic() + patience.wait_s, False
    while True:
        found, is_late = patience.ranks.from_first(
            lambda: (client.measurement(measurement_id), time.monotonic() > deadline)
        )
        n_done, n_wanted = count(found), found.n_measurable
        if n_done >= n_wanted:
            return found
        state = f"waiting for {what}: {n_done} of {n_wanted}; `paced rollout {found.student}` starts a worker"
        if is_late:
            raise WaitedTooLong(
                f"{state}. {patience.wait_s:g} s have passed; --no-wait-for-measurement goes on without"
            )
        if not is_said:
            log.warning("%s", state)
            is_said = True
        patience.sleep(POLL_S)
