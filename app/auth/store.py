"""Keys in the database."""

from sqlalchemy import Connection, insert, select, update

from app.db.engine import Database
from app.db.tables import keys
from app.db.transaction import reads, rows_as_dicts, writes
from paced.wire import Key, Scope


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
    def secret_of(self, conn: Connection, key_id: str) -> tuple[str, list[Scope]] | None:
        """Hash and scopes of a key in use."""
        query = select(keys).where(keys.c.key_id == key_id, ~keys.c.is_revoked)
        row = conn.execute(query).mappings().first()
        return None if row is None else (row["secret_hash"], [Scope(s) for s in row["scopes"]])

    @writes
    def revoke(self, conn: Connection, key_id: str) -> bool:
        """Make a key useless; False when there is none."""
        statement = update(keys).where(keys.c.key_id == key_id, ~keys.c.is_revoked).values(is_revoked=True)
        return bool(conn.execute(statement).rowcount)
