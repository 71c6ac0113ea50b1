"""Schema versions: create, upgrade, and refuse to run on an old one."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, func, inspect, pool, select

from app.errors import AppError

LOCK = 0x7061636564  # "paced": what processes that create the schema lock
SCRIPTS = Path(__file__).resolve().parents[2] / "migrations"


class SchemaMismatch(AppError):
    """The database's schema is not the one that this version of the code needs."""

    code, title = "schema_mismatch", "Schema mismatch"


def config(url: URL) -> Config:
    """Alembic's configuration for a database."""
    made = Config()
    made.set_main_option("script_location", str(SCRIPTS))
    made.attributes["url"] = url
    return made


def upgrade(url: URL, revision: str = "head") -> None:
    """Bring the schema up to a revision."""
    command.upgrade(config(url), revision)


def ensure_current(url: URL) -> str:
    """Create the schema in an empty database, accept a current one, refuse any other; returns the revision.

    Processes that start together on an empty PostgreSQL database wait for the one that creates it.
    """
    made = config(url)
    head = ScriptDirectory.from_config(made).get_current_head()
    engine = create_engine(made.attributes["url"], poolclass=pool.NullPool)
    with engine.connect() as conn:
        if conn.dialect.name == "postgresql":
            conn.execute(select(func.pg_advisory_lock(LOCK)))  # until the connection closes
        present, is_empty = _state(conn)
        if is_empty:
            upgrade(url)
            return str(head)
    if present != head:
        raise SchemaMismatch(
            f"the database {url.render_as_string(hide_password=True)} has schema {present or 'unknown'}, "
            f"this version needs {head}. Stop every paced process, back it up, then run `paced migrate`."
        )
    return str(head)


def _state(conn: Connection) -> tuple[str | None, bool]:
    revision = MigrationContext.configure(conn).get_current_revision()
    tables = set(inspect(conn).get_table_names()) - {"alembic_version"}
    return revision, revision is None and not tables
