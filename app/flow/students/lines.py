"""The line of ancestors of a student's newest checkpoint, and the seam to whoever keeps estimates along it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import ColumnElement, Connection, Label, bindparam, func, select

from app.db.tables import checkpoints, measurements


@dataclass(frozen=True, slots=True)
class Fork:
    """A checkpoint whose parent was not the newest one: a rollback, or a branch of its own.

    `after` is the greatest observation id when it was registered.
    """

    index: int
    parent_index: int
    after: int


@dataclass(frozen=True, slots=True)
class Line:
    """The newest checkpoint and its ancestors, by the forks among them, oldest first; without one it is every index."""

    forks: tuple[Fork, ...] = ()

    @classmethod
    def of(cls, forks: Iterable[Fork]) -> "Line":
        """The line, from every fork of a student; forks on an abandoned branch are left out."""
        found: list[Fork] = []
        for fork in sorted(forks, key=lambda fork: fork.index, reverse=True):
            if not found or fork.index <= found[-1].parent_index:
                found.append(fork)
        return cls(tuple(reversed(found)))

    def holds(self, checkpoint_index: int) -> bool:
        """Whether a checkpoint is on the line; others are on abandoned branches."""
        return not any(fork.parent_index < checkpoint_index < fork.index for fork in self.forks)


class Forking(Protocol):
    """Takes every measurement of a student back to a checkpoint, in the caller's transaction."""

    def fork(self, conn: Connection, student: str, index: int, parent_index: int) -> int:
        """The checkpoint `index` is about to descend from an old one; returns the greatest observation id by then."""
        ...


def newest_fork(student: ColumnElement[str]) -> Label[int]:
    """The newest fork's checkpoint, 0 when there is none, as `fork_index`: it grows when posteriors are made again."""
    c = checkpoints.alias().c
    newest = select(func.coalesce(func.max(c.index), 0)).where(c.student == student, c.forked_after.is_not(None))
    return newest.scalar_subquery().label("fork_index")


def forks_of(conn: Connection, student: str) -> list[Fork]:
    """Every fork of a student, oldest first."""
    return [Fork(*row) for row in conn.execute(_FORKS.where(_C.student == student))]


def line_of(conn: Connection, measurement_id: int) -> Line:
    """The line of a measurement's student as it is now."""
    return Line.of(Fork(*row) for row in conn.execute(_OF_MEASUREMENT, {"measurement": measurement_id}))


_C = checkpoints.c
_FORKS = select(_C.index, _C.parent_index, _C.forked_after).where(_C.forked_after.is_not(None)).order_by(_C.index)
_OF_MEASUREMENT = _FORKS.join(measurements, measurements.c.student == _C.student).where(
    measurements.c.measurement_id == bindparam("measurement")
)
