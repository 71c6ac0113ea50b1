"""A run's batches as a sequence that can be resumed: drawn ahead, shared out to ranks, acknowledged after the step.

The batch at a position of the run is drawn under an Idempotency-Key made of both: whoever asks for it, however often
and after whatever crash, gets the same batch, and the service has drawn it once.
"""

import itertools
import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, Literal

from paced import wire
from paced.ahead import Ahead
from paced.client import Client
from paced.errors import BadRequest, BatchExpired, NothingEligible, ScheduleComplete, Unavailable, Unreachable

POLL_S: Final = 1.0
_ALIGNED = ("problem_id", "pass_rate", "weight", "draw_probability", "loss_weight", "problems")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Draw:
    """What one rank trains on in one step: its share of the batch at a position of the run, with its texts."""

    position: int
    batch: wire.Batch

    def items(self) -> Iterator[tuple[wire.BatchProblem, float]]:
        """Each problem with its loss weight."""
        return self.batch.items()


@dataclass(frozen=True, slots=True)
class Ranks:
    """The place of a process among those that train together.

    `share`: all ranks train on one batch, of which each gets every n-th item. `own`: each draws its own batches.
    """

    rank: int = 0
    n_ranks: int = 1
    mode: Literal["share", "own"] = "share"

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.n_ranks:
            raise ValueError(f"rank {self.rank} is not one of {self.n_ranks} ranks, counted from 0")

    @property
    def acknowledges(self) -> bool:
        """Whether this rank speaks for the batch: of a shared one, the first."""
        return self.mode == "own" or self.rank == 0

    def key(self, run_id: str, position: int, attempt: int) -> str:
        """The Idempotency-Key of a draw; `attempt` counts batches at this position that expired unused."""
        place = f"{position}" if self.mode == "share" else f"{position}/{self.rank}"
        return f"{run_id}:{place}" + (f"~{attempt}" if attempt else "")

    def place(self, position: int) -> int:
        """How many batches of the run come before this rank's one at a position."""
        return position if self.mode == "share" else position * self.n_ranks + self.rank

    def cut(self, batch: wire.Batch) -> wire.Batch:
        """The share of this rank."""
        if self.mode == "own" or self.n_ranks == 1:
            return batch
        held = {name: getattr(batch, name) for name in _ALIGNED}
        parts = {name: None if values is None else values[self.rank :: self.n_ranks] for name, values in held.items()}
        return batch.model_copy(update={**parts, "size": len(parts["problem_id"] or ())})


@dataclass(frozen=True, slots=True)
class Source:
    """Where a run's batches come from.

    `size` counts problems of a batch, `n_steps` batches of the whole schedule (None: it has no end), `patience_s` how
    long to wait where no problem can be drawn.
    """

    client: Client
    curriculum_id: str
    run_id: str
    size: int
    n_steps: int | None
    ranks: Ranks = Ranks()
    patience_s: float = 600.0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"a batch of {self.size} problems cannot be drawn: give a size of 1 or more")

    def draw(self, position: int, stop: threading.Event) -> Draw | None:
        """The draw at a position, None when the schedule is over or `stop` was set.

        Raises NothingEligible after waiting in vain.
        """
        if self._is_over(position):
            return None
        stale: str | None = None
        for attempt in itertools.count():
            batch = self._patiently(self.ranks.key(self.run_id, position, attempt), stale, stop)
            if batch is None:
                return None
            if batch.state != wire.BatchState.EXPIRED:
                return Draw(position, self.ranks.cut(self.client.with_texts(batch)))
            stale = batch.batch_id
        raise AssertionError("attempts do not end")

    def _is_over(self, position: int) -> bool:
        """Several workers at once may ask past the end: the last steps are for the positions before it."""
        place = self.ranks.place(position)
        if self.n_steps is None or place < self.n_steps:
            return False
        n_steps = count_steps(self.client.curriculum(self.curriculum_id).schedule)  # it may be longer now
        return n_steps is not None and place >= n_steps

    def _patiently(self, key: str, stale: str | None, stop: threading.Event) -> wire.Batch | None:
        deadline, is_said = time.monotonic() + self.patience_s, False
        while not stop.is_set():
            try:
                return self.client.draw_batch(
                    self.curriculum_id, self.size, run_id=self.run_id, key=key, include="ids", replaces=stale
                )
            except ScheduleComplete:
                return None
            except BadRequest as error:
                if error.code != "idempotency_key_reused":
                    raise
                raise ValueError(
                    f"run {self.run_id} has drawn this step by another request, such as one of another size than "
                    f"{self.size}: give the size that it began with, or the run another name"
                ) from error
            except NothingEligible as error:
                if time.monotonic() + POLL_S > deadline:
                    raise
                if not is_said:
                    log.warning("waiting for problems: %s", error.detail)
                    is_said = True
                stop.wait(POLL_S)
        return None

    def draws(self, start: int, stride: int, n_ahead: int, end: int = sys.maxsize) -> Iterator[Draw]:
        """Draws at `start`, `start + stride`, ... below `end`, while the schedule lasts; `n_ahead` ahead of use."""
        stop = threading.Event()
        with closing(Ahead(self._in_order(range(start, end, stride), stop), n_ahead, stop)) as ahead:
            yield from ahead

    def _in_order(self, positions: Iterable[int], stop: threading.Event) -> Iterator[Draw]:
        for position in positions:
            draw = self.draw(position, stop)
            if draw is None:
                return
            yield draw


def count_steps(schedule: Sequence[wire.StagePlan]) -> int | None:
    """Batches of a whole schedule, None when its last stage is open."""
    steps = [plan.steps for plan in schedule]
    return None if None in steps else sum(filter(None, steps))


def curriculum_named(client: Client, curriculum: str) -> wire.Curriculum:
    """A curriculum by its name, or by its id. Raises NotFound."""
    return next(client.curricula(name=curriculum), None) or client.curriculum(curriculum)


class Stream:
    """Iterates over draws; `acknowledge` each after its optimiser step, then save `state_dict()` with the weights.

    `curriculum` and `run` are names (a curriculum's id will do); the run is made where there is none. `size` counts the
    problems of a batch, all ranks' shares together. A restart with the saved state goes on behind the last step saved,
    one without it at the first.
    """

    def __init__(
        self,
        client: Client,
        curriculum: str,
        run: str,
        size: int,
        *,
        ranks: Ranks = Ranks(),
        n_ahead: int = 2,
        patience_s: float = 600.0,
    ) -> None:
        found = curriculum_named(client, curriculum)
        made = client.create_run(wire.RunCreate(curriculum_id=found.curriculum_id, name=run))
        n_steps = count_steps(found.schedule)
        self.source = Source(client, found.curriculum_id, made.run_id, size, n_steps, ranks, patience_s)
        self._n_ahead = n_ahead
        self._position = 0
        self._unacknowledged: list[str] = []

    def __iter__(self) -> Iterator[Draw]:
        return self.source.draws(self._position, 1, self._n_ahead)

    def acknowledge(self, draw: Draw, outcomes: Sequence[wire.Outcome] = ()) -> None:
        """Say that the optimiser step on a draw is done.

        `outcomes` are graded answers of the student, of all ranks: of a shared batch the first rank sends them, for the
        others this only counts the step. While the service is away they are kept, without their outcomes, for later.
        """
        self._position = draw.position + 1
        if not self.source.ranks.acknowledges:
            return
        self.settle()
        self._send(draw.batch.batch_id, outcomes)

    def settle(self) -> None:
        """Acknowledge what an earlier try, or an earlier process, could not."""
        waiting, self._unacknowledged = self._unacknowledged, []
        for batch_id in waiting:
            self._send(batch_id, ())

    def _send(self, batch_id: str, outcomes: Sequence[wire.Outcome]) -> None:
        try:
            self.source.client.acknowledge(batch_id, outcomes)
        except BatchExpired as error:
            log.warning("the step on batch %s, drawn ahead, was done too late to count: %s", batch_id, error.detail)
        except (Unreachable, Unavailable) as error:
            log.warning("batch %s is not acknowledged yet: %s", batch_id, error)
            self._unacknowledged.append(batch_id)

    def state_dict(self) -> dict[str, Any]:
        """Where the run is: behind the last draw acknowledged."""
        unacknowledged = list(self._unacknowledged)
        return {"run_id": self.source.run_id, "position": self._position, "unacknowledged": unacknowledged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; raises ValueError when it is another run's."""
        if state["run_id"] != self.source.run_id:
            raise ValueError(
                f"the state is of run {state['run_id']}, this is {self.source.run_id}: give the run its former name"
            )
        self._position = int(state["position"])
        self._unacknowledged = list(state["unacknowledged"])
