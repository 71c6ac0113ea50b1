"""Who moves the posteriors of a measurement: reports beside each other, or one fork or rebuild alone.

On SQLite there is one writer anyway. On PostgreSQL these are advisory locks, which are taken in turn and which leases
do not take: locks on rows would follow the workers from row to row, and wait for each other.
"""

from sqlalchemy import Connection, text


def wait_to_report(conn: Connection, measurement_id: int) -> None:
    """Until the transaction is over nobody makes the measurement's posteriors again."""
    if conn.dialect.name != "sqlite":
        conn.execute(_SHARED, {"space": SPACE, "m": measurement_id})


def wait_to_rebuild(conn: Connection, measurement_id: int) -> None:
    """Until the transaction is over nobody reports; what was reported before is in the log."""
    if conn.dialect.name != "sqlite":
        conn.execute(_ALONE, {"space": SPACE, "m": measurement_id})


SPACE = 8420  # of the locks that other parts of the service might take
_SHARED = text("SELECT pg_advisory_xact_lock_shared(CAST(:space AS int), CAST(:m AS int))")
_ALONE = text("SELECT pg_advisory_xact_lock(CAST(:space AS int), CAST(:m AS int))")
