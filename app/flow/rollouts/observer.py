"""The seam to the stage on the right: whoever keeps estimates is told of groups inside the same transaction."""

import datetime as dt
from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from app.flow.rollouts.groups import Group


class Observer(Protocol):
    """Counts groups. `write` runs in the caller's transaction, `committed` after it."""

    async def write(
        self, conn: AsyncConnection, measurement_id: int, groups: Sequence[Group], now: dt.datetime
    ) -> tuple[dict[int, int], Any]:
        """Store the groups; returns observation ids by problem id, and what `committed` needs."""
        ...

    def committed(self, change: Any) -> None:
        """Make the change visible to draws."""
        ...
