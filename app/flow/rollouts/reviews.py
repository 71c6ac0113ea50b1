"""Reviews of stored answers in the database: kept when they are made, counted when someone says so."""

import datetime as dt
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, update

from app.db.engine import Database
from app.db.tables import observations, problems, reviews, rollouts
from app.db.transaction import reads, rows_as_dicts, writes
from app.errors import Conflict, Invalid, NotFound
from app.flow.rollouts.disputes import JUDGED
from app.flow.rollouts.measurements import measurement_row
from app.ids import numbered
from paced.wire import Review, ReviewCreate, Verdict


class ReviewStore:
    """Every statement on reviews."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @writes
    def add(self, conn: Connection, measurement_id: int, body: ReviewCreate, now: dt.datetime) -> Review:
        """Keep a review; another one of the same answer takes its place until it is counted."""
        verdict = _verdict(conn, measurement_id, body)
        c = reviews.c
        same = (c.observation_id == body.observation_id) & (c.position == body.position)
        after = Verdict.PASS if body.is_right else Verdict.FAIL
        values = {"verdict_after": after, "note": body.note, "decided_by": body.decided_by, "created_at": now}
        known = conn.execute(select(c.counted_at).where(same).with_for_update()).first()
        if known is None:
            place = {"observation_id": body.observation_id, "position": body.position}
            conn.execute(insert(reviews).values(**place, verdict_before=verdict, **values))
        elif known.counted_at is not None:
            raise Conflict(
                f"answer {body.position} of observation {body.observation_id} was reviewed, and its verdict is counted",
                code="already_counted",
            )
        else:
            conn.execute(update(reviews).where(same).values(**values))
        return Review.model_validate(rows_as_dicts(conn.execute(_of(measurement_id).where(same)))[0])

    @reads
    def page(self, conn: Connection, measurement_id: int, after: int, limit: int) -> list[Review]:
        """Reviews of a measurement, oldest first."""
        measurement_row(conn, measurement_id)
        query = _of(measurement_id).where(reviews.c.review_id > after).order_by(reviews.c.review_id).limit(limit)
        return [Review.model_validate(row) for row in rows_as_dicts(conn.execute(query))]

    @reads
    def newest(self, conn: Connection, measurement_id: int, limit: int) -> list[Review]:
        """The reviews made last, newest first."""
        query = _of(measurement_id).order_by(reviews.c.created_at.desc(), reviews.c.review_id.desc()).limit(limit)
        return [Review.model_validate(row) for row in rows_as_dicts(conn.execute(query))]

    @reads
    def n_waiting(self, conn: Connection, measurement_id: int) -> tuple[int, int]:
        """Reviews of a measurement that are not counted yet, and all."""
        waiting = func.count().filter(reviews.c.counted_at.is_(None))
        query = (
            select(waiting, func.count())
            .select_from(reviews)
            .join(observations, observations.c.observation_id == reviews.c.observation_id)
            .where(observations.c.measurement_id == measurement_id)
        )
        row = conn.execute(query).one()
        return int(row[0]), int(row[1])


def count_waiting(conn: Connection, measurement_id: int, now: dt.datetime) -> tuple[int, int]:
    """Put the verdicts of reviews into the log: how many were waiting, and how many verdicts changed.

    The log changes by nothing else; a review keeps the verdict that was there before.
    """
    c = reviews.c
    query = _of(measurement_id).where(c.counted_at.is_(None)).order_by(c.review_id)
    waiting = rows_as_dicts(conn.execute(query.with_for_update(of=reviews)))  # whoever changes one meanwhile waits
    changed = [row for row in waiting if row["verdict_before"] != row["verdict_after"]]
    for row in changed:
        r, o = rollouts.c, observations.c
        same = (r.observation_id == row["observation_id"]) & (r.position == row["position"])
        conn.execute(update(rollouts).where(same).values(verdict=row["verdict_after"]))
        sign = 1 if row["verdict_after"] == Verdict.PASS else -1
        moved = {"n_passed": o.n_passed + sign, "n_failed": o.n_failed - sign}
        conn.execute(update(observations).where(o.observation_id == row["observation_id"]).values(**moved))
    if waiting:
        ids = [row["review_id"] for row in waiting]
        conn.execute(update(reviews).where(c.review_id.in_(ids)).values(counted_at=now))
    return len(waiting), len(changed)


def _of(measurement_id: int) -> Select[Any]:
    o, p = observations.c, problems.c
    return (
        select(reviews, o.problem_id, p.ordinal)
        .join(observations, o.observation_id == reviews.c.observation_id)
        .join(problems, p.problem_id == o.problem_id)
        .where(o.measurement_id == measurement_id)
    )


def _verdict(conn: Connection, measurement_id: int, body: ReviewCreate) -> Verdict:
    o, r = observations.c, rollouts.c
    query = (
        select(r.verdict)
        .join(observations, o.observation_id == r.observation_id)
        .where(o.measurement_id == measurement_id)
        .where(r.observation_id == body.observation_id, r.position == body.position)
    )
    verdict = conn.execute(query).scalar()
    if verdict is None:
        raise NotFound(
            f"{numbered('mea', measurement_id)} has no stored answer {body.position} of observation "
            f"{body.observation_id}; GET .../disputes lists those in doubt"
        )
    if verdict not in JUDGED:
        raise Invalid(
            f"the answer's verdict is {verdict.value}: only a pass or a fail can be reviewed", code="not_judged"
        )
    return Verdict(verdict)
