"""What workers report, counted by the minute as it comes in: read without a pass over the log."""

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete
from sqlalchemy.dialects import postgresql, sqlite

from app.db.tables import activity
from paced.wire import RolloutGroup, Verdict

KEPT = dt.timedelta(days=7)
MINUTE = dt.timedelta(minutes=1)
COUNTED = {verdict: f"n_{verdict.value}" for verdict in Verdict}
_ADDED = ("n_groups", "n_tokens", *COUNTED.values())


def record(
    conn: Connection, measurement_id: int, worker: str, groups: Sequence[RolloutGroup], now: dt.datetime
) -> None:
    """Count groups that a worker reports, in the transaction that takes them."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    verdicts = Counter(rollout.verdict for rollout in rollouts)
    row: dict[str, Any] = {
        "measurement_id": measurement_id,
        "worker": worker,
        "minute": minute_of(now),
        "last_at": now,
        "n_groups": len(groups),
        "n_tokens": sum(rollout.n_tokens for rollout in rollouts),
        **{name: verdicts[verdict] for verdict, name in COUNTED.items()},
    }
    make = sqlite.insert if conn.dialect.name == "sqlite" else postgresql.insert
    statement = make(activity).values(**row)
    new = statement.excluded
    more = {name: activity.c[name] + new[name] for name in _ADDED}
    key = ["measurement_id", "worker", "minute"]
    conn.execute(statement.on_conflict_do_update(index_elements=key, set_={**more, "last_at": new.last_at}))


def forget_old(conn: Connection, now: dt.datetime) -> None:
    """Drop what is older than any page shows."""
    conn.execute(delete(activity).where(activity.c.minute < now - KEPT))


def minute_of(now: dt.datetime) -> dt.datetime:
    """The minute that runs."""
    return now.replace(second=0, microsecond=0)
