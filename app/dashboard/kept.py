"""Values that are costly to make: while a newer one is being made, the last one is served."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
MAX_KEPT = 64


@dataclass(frozen=True, slots=True)
class _Value(Generic[T]):
    version: Hashable
    value: T
    made_at: float


class Kept(Generic[T]):
    """One value a key, made again when its version is another one, and then at most every `every_s` seconds."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._values: dict[Hashable, _Value[T]] = {}
        self._making: dict[Hashable, asyncio.Task[T]] = {}

    async def get(
        self, key: Hashable, version: Hashable, make: Callable[[], Awaitable[T]], patience_s: float
    ) -> tuple[T, bool]:
        """The value, and whether it is of this version; only the first is waited for beyond `patience_s`."""
        known = self._values.get(key)
        if known is not None and known.version == version:
            return known.value, True
        if known is not None and asyncio.get_running_loop().time() - known.made_at < self._every_s:
            return known.value, False
        task = self._making.get(key)
        if task is None:
            task = asyncio.create_task(self._make(key, version, make))
            self._making[key] = task
        if known is None:
            return await asyncio.shield(task), True
        done, _ = await asyncio.wait([task], timeout=patience_s)
        return (task.result(), True) if done else (known.value, False)

    async def _make(self, key: Hashable, version: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        try:
            value = await make()
        finally:
            del self._making[key]
        if len(self._values) >= MAX_KEPT:
            self._values.clear()
        self._values[key] = _Value(version, value, asyncio.get_running_loop().time())
        return value
