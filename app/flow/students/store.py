"""Students, checkpoints and sampling profiles in the database."""

import datetime as dt
from typing import Any

from sqlalchemy import Connection, func, insert, select

from app.db.engine import Database
from app.db.tables import checkpoints, profiles, students
from app.db.transaction import reads, rows_as_dicts, writes
from app.errors import Invalid, NotFound
from app.flow.students.lines import Forking
from app.http.idempotency import Idempotency
from paced.wire import Checkpoint, CheckpointCreate, Profile, Student


class StudentStore:
    """Every statement on students, checkpoints and profiles."""

    def __init__(self, db: Database, forking: Forking) -> None:
        self.db = db
        self._forking = forking

    @writes
    def create(self, conn: Connection, wanted: Student) -> Student:
        """Store a student, or return the one of that name."""
        known = _student(conn, wanted.name)
        if known is not None:
            return known
        conn.execute(insert(students).values(**wanted.model_dump(exclude={"latest_checkpoint"})))
        return wanted

    @reads
    def get(self, conn: Connection, name: str) -> Student:
        """One student; NotFound when there is none."""
        return _present(name, _student(conn, name))

    @reads
    def page(self, conn: Connection, after: str | None, limit: int) -> list[Student]:
        """Students by name."""
        query = select(students.c.name).order_by(students.c.name).limit(limit)
        if after is not None:
            query = query.where(students.c.name > after)
        names = [row.name for row in conn.execute(query)]
        return [_present(name, _student(conn, name)) for name in names]

    @writes
    def add_checkpoint(
        self, conn: Connection, name: str, body: CheckpointCreate, identity: Idempotency, now: dt.datetime
    ) -> Checkpoint:
        """Give new weights the next index; the same Idempotency-Key returns the same checkpoint.

        A parent that is not the newest checkpoint is a fork, which takes estimates back to it.
        """
        locked = conn.execute(select(students.c.name).where(students.c.name == name).with_for_update())
        if locked.first() is None:
            _present(name, None)
        known = _checkpoint_of_key(conn, name, identity)
        if known is not None:
            return known
        c = checkpoints.c
        newest = (conn.execute(select(func.max(c.index)).where(c.student == name))).scalar()
        index = 0 if newest is None else newest + 1
        parent = index - 1 if body.parent_index is None else body.parent_index
        if parent >= index:
            raise Invalid(f"student {name!r} has no checkpoint {parent} to descend from", code="no_such_parent")
        made = Checkpoint(student=name, index=index, **body.model_dump(), created_at=now)
        forked_after = None if parent == index - 1 else self._forking.fork(conn, name, index, parent)
        extra = {"idempotency_key": identity.key, "request_hash": identity.request_hash, "forked_after": forked_after}
        conn.execute(insert(checkpoints).values(**made.model_dump(), **extra))
        return made

    @reads
    def checkpoints(self, conn: Connection, name: str, after: int, limit: int) -> list[Checkpoint]:
        """Checkpoints of a student above an index, oldest first."""
        _present(name, _student(conn, name))
        c = checkpoints.c
        query = select(checkpoints).where(c.student == name, c.index > after).order_by(c.index).limit(limit)
        return [Checkpoint.model_validate(row) for row in rows_as_dicts(conn.execute(query))]

    @writes
    def create_profile(self, conn: Connection, wanted: Profile) -> Profile:
        """Store a profile, or return the one with that hash."""
        known = _profile(conn, wanted.profile_id)
        if known is not None:
            return known
        body = wanted.model_dump(mode="json", exclude={"profile_id", "created_at"})
        row = {"profile_id": wanted.profile_id, "body": body, "created_at": wanted.created_at}
        conn.execute(insert(profiles).values(**row))
        return wanted

    @reads
    def profile(self, conn: Connection, profile_id: str) -> Profile:
        """One profile; NotFound when there is none."""
        found = _profile(conn, profile_id)
        if found is None:
            raise NotFound(f"there is no sampling profile {profile_id!r}; POST /v1/sampling-profiles makes one")
        return found

    @reads
    def profiles(self, conn: Connection, after: str | None, limit: int) -> list[Profile]:
        """Profiles by id."""
        query = select(profiles).order_by(profiles.c.profile_id).limit(limit)
        if after is not None:
            query = query.where(profiles.c.profile_id > after)
        return [_profile_from(row) for row in rows_as_dicts(conn.execute(query))]


def latest_checkpoint(conn: Connection, student: str) -> Checkpoint | None:
    """The newest checkpoint of a student."""
    c = checkpoints.c
    query = select(checkpoints).where(c.student == student).order_by(c.index.desc()).limit(1)
    row = conn.execute(query).mappings().first()
    return None if row is None else Checkpoint.model_validate(dict(row))


def checkpoint_at(conn: Connection, student: str, index: int) -> Checkpoint:
    """A checkpoint that is known to be there."""
    query = select(checkpoints).where(checkpoints.c.student == student, checkpoints.c.index == index)
    return Checkpoint.model_validate(dict(conn.execute(query).mappings().one()))


def _student(conn: Connection, name: str) -> Student | None:
    row = conn.execute(select(students).where(students.c.name == name)).mappings().first()
    if row is None:
        return None
    return Student.model_validate({**row, "latest_checkpoint": latest_checkpoint(conn, name)})


def _checkpoint_of_key(conn: Connection, name: str, identity: Idempotency) -> Checkpoint | None:
    if identity.key is None:
        return None
    c = checkpoints.c
    query = select(checkpoints).where(c.student == name, c.idempotency_key == identity.key)
    row = conn.execute(query).mappings().first()
    if row is None:
        return None
    identity.check(row["request_hash"])
    return Checkpoint.model_validate(dict(row))


def _profile(conn: Connection, profile_id: str) -> Profile | None:
    row = conn.execute(select(profiles).where(profiles.c.profile_id == profile_id)).mappings().first()
    return None if row is None else _profile_from(dict(row))


def _profile_from(row: dict[str, Any]) -> Profile:
    body = row["body"]
    return Profile.model_validate({**body, "profile_id": row["profile_id"], "created_at": row["created_at"]})


def _present(name: str, found: Student | None) -> Student:
    if found is None:
        raise NotFound(f"there is no student {name!r}; POST /v1/students makes one")
    return found
