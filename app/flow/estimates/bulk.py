"""Estimate rows as arrays, however many there are.

Millions of rows are read by an Arrow driver in a process of its own: the driver for SQLite brings its own copy of
SQLite, and two copies in one process would break each other's file locks. Run as a module, this file is that process.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import URL, Connection, make_url, select

from app.db.tables import estimates
from app.flow.estimates.columns import NAMES, RECORD
from paced.wire import ProblemState

Arrays = dict[str, npt.NDArray[Any]]
MANY = 100_000  # rows from which a process of its own is faster
DTYPES: dict[str, Any] = {
    "problem_id": np.int64,
    "holdout_key": np.int32,
    "n_groups": np.int32,
    **{name: RECORD[name] for name in NAMES},
}
_EPOCH = {
    "sqlite": "COALESCE((julianday(quarantined_until) - 2440587.5) * 86400.0, 0.0)",
    "postgresql": "COALESCE(EXTRACT(EPOCH FROM quarantined_until)::float8, 0)",
}


def read(conn: Connection, measurement_id: int) -> tuple[Arrays, list[str]]:
    """Columns of a measurement's rows by ordinal, with `is_ready`, `quarantined_until` and `skill`; and the skills."""
    c = estimates.c
    query = (
        select(*(c[name] for name in DTYPES), c.quarantined_until, c.state, c.skill)
        .where(c.measurement_id == measurement_id)
        .order_by(c.ordinal)
    )
    rows = conn.execute(query).all()
    arrays: Arrays = {name: np.array([row[i] for row in rows], dtype) for i, (name, dtype) in enumerate(DTYPES.items())}
    until = [0.0 if row.quarantined_until is None else row.quarantined_until.timestamp() for row in rows]
    arrays["quarantined_until"] = np.array(until, np.float64)
    arrays["is_ready"] = np.array([row.state == ProblemState.READY for row in rows], np.bool_)
    skills = sorted({row.skill for row in rows})
    place = {name: i for i, name in enumerate(skills)}
    arrays["skill"] = np.array([place[row.skill] for row in rows], np.int32)
    return arrays, skills


def read_apart(url: URL, measurement_id: int) -> tuple[Arrays, list[str]]:
    """The same from another process, for many rows; blocks until it is done."""
    import polars as pl

    with tempfile.TemporaryDirectory(prefix="paced-load-") as folder:
        file = Path(folder) / "rows.arrow"
        plain = url.set(drivername=url.get_backend_name()).render_as_string(hide_password=False)
        command = [sys.executable, "-m", __name__, str(measurement_id), str(file)]
        done = subprocess.run(command, input=plain, text=True, capture_output=True, check=False)  # noqa: S603 - our own
        if done.returncode:
            raise RuntimeError(f"loading measurement {measurement_id} failed: {done.stderr.strip()[-2000:]}")
        frame = pl.read_ipc(file)
    skills = frame["skill"].unique().sort().to_list()
    arrays: Arrays = {name: frame[name].to_numpy().astype(dtype) for name, dtype in DTYPES.items()}
    arrays["quarantined_until"] = frame["quarantined_until"].to_numpy().astype(np.float64)
    arrays["is_ready"] = frame["is_ready"].to_numpy().astype(np.bool_)
    arrays["skill"] = frame["skill"].cast(pl.Enum(skills)).to_physical().to_numpy().astype(np.int32)
    return arrays, skills


def main(measurement_id: int, file: Path) -> None:
    """Copy a measurement's rows to an Arrow file; the database's URL comes on standard input."""
    import adbc_driver_postgresql.dbapi as postgresql
    import adbc_driver_sqlite.dbapi as sqlite

    url = make_url(sys.stdin.read())
    kind = url.get_backend_name()
    query = (
        f"SELECT {', '.join(DTYPES)}, {_EPOCH[kind]} AS quarantined_until, "  # noqa: S608 - our own names
        f"CASE WHEN state = '{ProblemState.READY.value}' THEN 1 ELSE 0 END AS is_ready, skill "
        f"FROM estimates WHERE measurement_id = {measurement_id} ORDER BY ordinal"
    )
    if kind == "sqlite":
        connection = sqlite.connect(url.database)
    else:
        connection = postgresql.connect(url.render_as_string(hide_password=False))
    with connection, connection.cursor() as cursor:
        if kind == "sqlite":
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": "65536"})
        cursor.execute(query)
        cursor.fetch_polars().write_ipc(file, compression="uncompressed")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
