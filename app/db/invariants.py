"""What must hold in every committed state (invariants.sql), to be asked after a crash or a repair."""

from pathlib import Path

from sqlalchemy import URL, create_engine, pool

MARK = "-- name: "
MAX_SHOWN = 10


def queries() -> dict[str, str]:
    """What each invariant says, and the query for the rows that break it."""
    parts = Path(__file__).with_suffix(".sql").read_text().split(MARK)[1:]
    named = [part.partition("\n") for part in parts]
    return {name: query for name, _, query in named}


def broken(url: URL) -> dict[str, list[tuple[object, ...]]]:
    """The invariants that do not hold, each with the first rows that break it; empty when all is well."""
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.connect() as conn:
        found = {name: conn.exec_driver_sql(query).fetchmany(MAX_SHOWN) for name, query in queries().items()}
    return {name: [tuple(row) for row in rows] for name, rows in found.items() if rows}
