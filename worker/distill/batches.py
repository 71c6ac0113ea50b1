"""A run's batches, the same on every rank: the first rank draws them, each while the one before it is trained on.

The draw ahead is over before a step is acknowledged. So whatever draws exclude and know (the open batch, the
observations that an acknowledgement brings) does not depend on which was quicker, and a run that was killed draws as
one that was not.
"""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from paced.client import Client
from paced.errors import NothingEligible, ScheduleComplete
from paced.wire import Batch
from worker.distill.errors import WaitedTooLong
from worker.distill.stages import POLL_S, Patience

log = logging.getLogger(__name__)

Drawn = Batch | str | None
"""A batch; or why none can be drawn now; or None when the schedule is over."""


class Batches:
    """Batches of `size` problems by step, under keys that give the same batch however often they are asked for."""

    def __init__(self, client: Client, curriculum_id: str, run_id: str, size: int, patience: Patience) -> None:
        self._client = client
        self._curriculum_id = curriculum_id
        self._run_id = run_id
        self._size = size
        self._patience = patience
        self._thread = ThreadPoolExecutor(1, "paced-draw")
        self._ahead: tuple[int, Future[Drawn]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    def at(self, step: int) -> Batch | None:
        """The batch of a step, None when the schedule is over; waits while no problem can be drawn.

        Every rank must ask. Raises WaitedTooLong, Interrupted.
        """
        patience = self._patience
        deadline, said = time.monotonic() + patience.wait_s, ""
        while True:
            found, is_late = patience.ranks.from_first(lambda: (self._found(step), time.monotonic() > deadline))
            if not isinstance(found, str):
                return found
            if is_late:
                raise WaitedTooLong(f"step {step}: {found}; waited {patience.wait_s:g} s for that to change")
            if found != said:
                log.warning("step %d waits: %s", step, found)
                said = found
            patience.sleep(POLL_S)

    def look_ahead(self, step: int) -> None:
        """Begin to draw the batch of a step, on the first rank."""
        if self._patience.ranks.is_first:
            self._ahead = step, self._thread.submit(self._draw, step)

    def settle(self) -> None:
        """Wait until the draw ahead is over; its errors are raised where its batch is asked for."""
        if self._ahead is not None:
            self._ahead[1].exception()

    def _found(self, step: int) -> Drawn:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == step:
            drawn = ahead[1].result()
            if not isinstance(drawn, str):
                return drawn
        return self._draw(step)

    def _draw(self, step: int) -> Drawn:
        try:
            return self._client.draw_batch(
                self._curriculum_id, self._size, run_id=self._run_id, key=f"{self._run_id}:{step}"
            )
        except ScheduleComplete:
            return None
        except NothingEligible as error:
            return error.detail or "no problem can be drawn"
