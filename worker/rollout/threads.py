"""Blocking calls from async code, in threads that never keep the process alive."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

NAME = "paced-call"

T = TypeVar("T")


async def in_thread(call: Callable[..., T], *arguments: Any) -> T:
    """Run a blocking call in a daemon thread and return what it returns.

    Unlike asyncio.to_thread, a call that hangs (a dead service, a loading model) does not hold up the exit.
    Cancelling stops the wait, not the call.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = call(*arguments)
        except BaseException as caught:  # handed to the waiting task
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name=NAME, daemon=True).start()
    return await future


def is_any_running() -> bool:
    """Whether a call is still under way in its thread."""
    return any(thread.name == NAME for thread in threading.enumerate())
