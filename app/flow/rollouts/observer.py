"""The seam to the stage on the right: whoever keeps estimates is told of groups inside the same transaction."""

import datetime as dt
from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import Connection

from app.flow.rollouts.groups import Group


class Observer(Protocol):
    """Counts groups in the caller's transaction; draws see them once it is committed."""

    def write(self, conn: Connection, measurement_id: int, groups: Sequence[Group], now: dt.datetime) -> dict[int, int]:
        """Store the groups; returns observation ids by problem id."""
        ...
