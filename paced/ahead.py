"""Items of an iterator, taken before they are asked for."""

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Takes items in a thread, up to `n` ahead of use; an error is raised in the place of the item that it cost.

    `stop` is set by `close`, so that the source can end what it waits for.
    """

    def __init__(self, source: Iterator[T], n: int, stop: threading.Event) -> None:
        self._source, self._stop = source, stop
        self._ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()
        self._room = threading.Semaphore(n + 1)
        threading.Thread(target=self._fill, name="paced-ahead", daemon=True).start()

    def _fill(self) -> None:
        error: BaseException | None = None
        try:
            while self._room.acquire() and not self._stop.is_set():
                self._ready.put((next(self._source), None))
        except StopIteration:
            pass
        except BaseException as caught:
            error = caught
        self._ready.put((None, error))

    def __iter__(self) -> Iterator[T]:
        while True:
            item, error = self._ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
            self._room.release()

    def close(self) -> None:
        """End the thread; a draw under way may still be made, and is found again by its key."""
        self._stop.set()
        self._room.release()
