"""Keys in the database."""

import datetime as dt

from sqlalchemy import Connection, delete, insert, select, update

from app.db.engine import Database
from app.db.tables import keys, sign_in_links
from app.db.transaction import reads, rows_as_dicts, writes
from paced.wire import Key


class KeyStore:
    """Every statement on keys."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @writes
    def add(self, conn: Connection, key: Key, secret_hash: str) -> None:
        """Store a key; one that is there already stays as it is."""
        known = conn.execute(select(keys.c.key_id).where(keys.c.key_id == key.key_id)).first()
        if known is None:
            row = {**key.model_dump(exclude={"scopes"}), "scopes": [scope.value for scope in key.scopes]}
            conn.execute(insert(keys).values(**row, secret_hash=secret_hash, is_revoked=False))

    @reads
    def all(self, conn: Connection) -> list[Key]:
        """Keys in use, oldest first."""
        query = select(keys).where(~keys.c.is_revoked).order_by(keys.c.created_at, keys.c.key_id)
        return [Key.model_validate(row) for row in rows_as_dicts(conn.execute(query))]

    @reads
    def get(self, conn: Connection, key_id: str) -> tuple[str, Key] | None:
        """A key in use, after the hash of its secret."""
        query = select(keys).where(keys.c.key_id == key_id, ~keys.c.is_revoked)
        rows = rows_as_dicts(conn.execute(query))
        return (rows[0]["secret_hash"], Key.model_validate(rows[0])) if rows else None

    @writes
    def revoke(self, conn: Connection, key_id: str) -> bool:
        """Make a key useless; False when there is none."""
        statement = update(keys).where(keys.c.key_id == key_id, ~keys.c.is_revoked).values(is_revoked=True)
        return bool(conn.execute(statement).rowcount)

    @writes
    def add_link(
        self, conn: Connection, link_hash: str, key_id: str, expires_at: dt.datetime, now: dt.datetime
    ) -> None:
        """Store a link that signs in once; those past their time go."""
        conn.execute(delete(sign_in_links).where(sign_in_links.c.expires_at <= now))
        conn.execute(insert(sign_in_links).values(link_hash=link_hash, key_id=key_id, expires_at=expires_at))

    @writes
    def take_link(self, conn: Connection, link_hash: str, now: dt.datetime) -> str | None:
        """The key of a link, which is gone afterwards; None when it was used, or its time is over."""
        c = sign_in_links.c
        used = delete(sign_in_links).where(c.link_hash == link_hash, c.expires_at > now).returning(c.key_id)
        return conn.execute(used).scalar()
