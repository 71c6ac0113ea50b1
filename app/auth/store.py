"""Keys in the database."""

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.engine import Database
from app.db.tables import keys
from app.db.transaction import reads, rows_as_dicts, writes
from paced.wire import Key, Scope


class KeyStore:
    """Every statement on keys."""

    def __init__(self, db: Database) -> None:
        self.db = db

    @writes
    async def add(self, conn: AsyncConnection, key: Key, secret_hash: str) -> None:
        """Store a key; one that is there already stays as it is."""
        known = (await conn.execute(select(keys.c.key_id).where(keys.c.key_id == key.key_id))).first()
        if known is None:
            row = {**key.model_dump(exclude={"scopes"}), "scopes": [scope.value for scope in key.scopes]}
            await conn.execute(insert(keys).values(**row, secret_hash=secret_hash, is_revoked=False))

    @reads
    async def all(self, conn: AsyncConnection) -> list[Key]:
        """Keys in use, oldest first."""
        query = select(keys).where(~keys.c.is_revoked).order_by(keys.c.created_at, keys.c.key_id)
        return [Key.model_validate(row) for row in rows_as_dicts(await conn.execute(query))]

    @reads
    async def secret_of(self, conn: AsyncConnection, key_id: str) -> tuple[str, list[Scope]] | None:
        """Hash and scopes of a key in use."""
        query = select(keys).where(keys.c.key_id == key_id, ~keys.c.is_revoked)
        row = (await conn.execute(query)).mappings().first()
        return None if row is None else (row["secret_hash"], [Scope(s) for s in row["scopes"]])

    @writes
    async def revoke(self, conn: AsyncConnection, key_id: str) -> bool:
        """Make a key useless; False when there is none."""
        statement = update(keys).where(keys.c.key_id == key_id, ~keys.c.is_revoked).values(is_revoked=True)
        return bool((await conn.execute(statement)).rowcount)
