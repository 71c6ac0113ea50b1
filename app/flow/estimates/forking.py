"""A fork of a student's checkpoints: its measurements are folded again along the new line of ancestors."""

from sqlalchemy import Connection, func, select

from app.db.tables import measurements, observations
from app.flow.estimates.rebuild import overwrite
from app.flow.estimates.turns import wait_to_rebuild
from app.flow.students.lines import Fork, Line, forks_of


class Rewinder:
    """The seam of stage 2: estimates follow a fork inside the transaction that registers it."""

    def fork(self, conn: Connection, student: str, index: int, parent_index: int) -> int:
        """Take every measurement of the student back to the parent; returns the greatest observation id by then.

        Draws see it by `fork_index`: a pool that was loaded before the fork is loaded anew.
        """
        m = measurements.c
        mine = select(m.measurement_id).where(m.student == student).order_by(m.measurement_id)
        numbers = conn.execute(mine).scalars().all()
        for measurement_id in numbers:
            wait_to_rebuild(conn, measurement_id)  # a report is in the log by then, or will see the new line
        after = conn.execute(select(func.max(observations.c.observation_id))).scalar() or 0
        line = Line.of([*forks_of(conn, student), Fork(index, parent_index, after)])
        for measurement_id in numbers:
            overwrite(conn, measurement_id, line)
        return after
