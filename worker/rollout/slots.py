"""How many prompts are in the engine, and waiting until none is."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from worker.rollout.tally import Tally


class Slot:
    """One prompt's place in the engine; freed once, however often it is asked to."""

    def __init__(self, slots: "Slots") -> None:
        self._slots: Slots | None = slots

    @property
    def is_free(self) -> bool:
        """Whether the prompt is out of the engine."""
        return self._slots is None

    def free(self) -> None:
        """Let the next prompt in."""
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.give(self)


class Slots:
    """At most `n` prompts at once."""

    def __init__(self, n: int, tally: Tally) -> None:
        self._n = n
        self._free = asyncio.Semaphore(n)
        self._tally = tally

    async def take(self) -> Slot:
        """Wait for a place."""
        await self._free.acquire()
        self._tally.enter()
        return Slot(self)

    def give(self, _: Slot) -> None:
        """Take a place back."""
        self._tally.leave()
        self._free.release()

    @contextlib.asynccontextmanager
    async def drained(self) -> AsyncIterator[None]:
        """Wait until the engine is empty and keep it so."""
        n_taken = 0
        try:
            for _ in range(self._n):
                await self._free.acquire()
                n_taken += 1
            yield
        finally:
            for _ in range(n_taken):
                self._free.release()
