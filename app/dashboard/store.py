"""A text a topic that is another one when something of it has changed: what live pages ask once a second."""

from sqlalchemy import Connection, Select, cast, func, select
from sqlalchemy.types import String

from app.db.engine import Database
from app.db.tables import (
    batches,
    checkpoints,
    curricula,
    curriculum_versions,
    decisions,
    leases,
    observations,
    problem_sets,
    reviews,
    runs,
)
from app.db.transaction import reads, rows_as_dicts
from paced.wire import BatchState, LeaseState


def _newest_batches() -> Select[tuple[int]]:
    b, c = batches.c, curricula.c
    newest = select(func.max(b.seq)).where(b.curriculum_id == c.curriculum_id).correlate(curricula).scalar_subquery()
    return select(func.sum(newest + 1))


# each is a look at the end of an index, or over few rows
TOPICS = {
    "problems": select(func.sum(problem_sets.c.n_rows + problem_sets.c.state_version)),
    "decisions": select(func.max(decisions.c.decision_id)),
    "checkpoints": select(func.count()).select_from(checkpoints),
    "leases": select(func.max(leases.c.expires_at)).where(leases.c.state == LeaseState.ACTIVE),
    "observations": select(func.max(observations.c.observation_id)),
    "curricula": select(func.count()).select_from(curriculum_versions),
    "batches": _newest_batches(),
    "open_batches": select(func.count()).select_from(batches).where(batches.c.state == BatchState.OPEN),
    "reviews": select(func.max(reviews.c.created_at)),
    "runs": select(func.max(runs.c.updated_at)),
}


class LiveStore:
    """The one statement of live pages."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @reads
    def versions(self, conn: Connection) -> dict[str, str]:
        """The text of each topic."""
        columns = [cast(query.scalar_subquery(), String).label(topic) for topic, query in TOPICS.items()]
        (row,) = rows_as_dicts(conn.execute(select(*columns)))
        return {topic: value or "" for topic, value in row.items()}
