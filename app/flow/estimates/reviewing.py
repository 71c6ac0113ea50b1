"""Reviews are counted: verdicts in the log change, and the estimates are made again from it."""

import datetime as dt

from sqlalchemy import Connection, select, update

from app.clock import Clock
from app.db.engine import Database
from app.db.tables import measurements, problem_sets
from app.db.transaction import writes
from app.flow.estimates.rebuild import overwrite
from app.flow.estimates.turns import wait_to_rebuild
from app.flow.rollouts.measurements import measurement_row
from app.flow.rollouts.reviews import count_waiting
from app.flow.students.lines import line_of
from app.ids import numbered
from paced.wire import ReviewsCounted


class ReviewCounting:
    """Counts a measurement's reviews in one transaction; it reads the whole log, as a fork does."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self.db = db
        self._clock = clock

    async def count(self, measurement_id: int) -> ReviewsCounted:
        """Every review that waits; draws of all processes follow from the next one on."""
        return await self._count(measurement_id, self._clock())

    @writes
    def _count(self, conn: Connection, measurement_id: int, now: dt.datetime) -> ReviewsCounted:
        measurement_row(conn, measurement_id)
        wait_to_rebuild(conn, measurement_id)
        n_reviews, n_changed = count_waiting(conn, measurement_id, now)
        n_estimates = 0
        if n_changed:
            n_estimates = len(overwrite(conn, measurement_id, line_of(conn, measurement_id)).changed)
            _tell_pools(conn, measurement_id)
        number = numbered("mea", measurement_id)
        return ReviewsCounted(measurement_id=number, n_reviews=n_reviews, n_changed=n_changed, n_estimates=n_estimates)


def _tell_pools(conn: Connection, measurement_id: int) -> None:
    """A new version of the set makes every process load its pools again."""
    s, m = problem_sets.c, measurements.c
    name = select(m.problem_set).where(m.measurement_id == measurement_id).scalar_subquery()
    conn.execute(update(problem_sets).where(s.name == name).values(state_version=s.state_version + 1))
