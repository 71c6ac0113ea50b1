"""Estimate rows as arrays, however many there are.

Millions of rows are read by an Arrow driver in processes of their own: the driver for SQLite brings its own copy of
SQLite, and two copies in one process would break each other's file locks.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import URL, Connection, select

from app.db.tables import estimates
from app.flow.estimates.columns import NAMES, RECORD
from paced.wire import ProblemState

Arrays = dict[str, npt.NDArray[Any]]
MANY = 100_000  # rows from which processes of their own are faster
MAX_PARTS = 4
DTYPES: dict[str, Any] = {
    "problem_id": np.int64,
    "holdout_key": np.int32,
    "n_groups": np.int32,
    **{name: RECORD[name] for name in NAMES},
}
_EPOCH = {
    "sqlite": "COALESCE((julianday(quarantined_until) - 2440587.5) * 86400.0, 0.0) AS quarantined_until",
    "postgresql": "COALESCE(EXTRACT(EPOCH FROM quarantined_until)::float8, 0) AS quarantined_until",
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


def read_apart(url: URL, measurement_id: int, n_problems: int) -> tuple[Arrays, list[str]]:
    """The same from other processes, for many rows; blocks until they are done."""
    import polars as pl

    backend = url.get_backend_name()
    is_ready = f"CASE WHEN state = '{ProblemState.READY.value}' THEN 1 ELSE 0 END AS is_ready"
    frame = _apart(url, measurement_id, n_problems, (*DTYPES, _EPOCH[backend], is_ready, "skill"))
    skills = frame["skill"].unique().sort().to_list()
    arrays: Arrays = {name: frame[name].to_numpy().astype(dtype, copy=False) for name, dtype in DTYPES.items()}
    arrays["quarantined_until"] = frame["quarantined_until"].to_numpy().astype(np.float64)
    arrays["is_ready"] = frame["is_ready"].to_numpy().astype(np.bool_)
    arrays["skill"] = frame["skill"].cast(pl.Enum(skills)).to_physical().to_numpy().astype(np.int32)
    return arrays, skills


def columns_apart(url: URL, measurement_id: int, n_problems: int, names: Sequence[str]) -> Arrays:
    """Some integer columns of a measurement's rows by ordinal, read by other processes too."""
    frame = _apart(url, measurement_id, n_problems, names)
    return {name: frame[name].to_numpy()[:n_problems] for name in names}


def _apart(url: URL, measurement_id: int, n_problems: int, selected: Sequence[str]) -> Any:
    """Rows by ordinal as a polars frame.

    Each process reads a part, so that parts may be of different moments: every row is whole, and what was committed
    since the caller began is applied again.
    """
    import polars as pl

    n_parts = _n_parts(url)
    with tempfile.TemporaryDirectory(prefix="paced-load-") as folder:
        files = [Path(folder) / f"{part}.arrow" for part in range(n_parts)]
        starts = [part * n_problems // n_parts for part in range(n_parts)]
        queries = [
            _query(selected, measurement_id, start, end) for start, end in zip(starts, [*starts[1:], None], strict=True)
        ]
        with ThreadPoolExecutor(n_parts) as threads:
            list(threads.map(partial(_copy, url), queries, files))
        return pl.concat([pl.read_ipc(file) for file in files])


def _n_parts(url: URL) -> int:
    """A reader a core; on PostgreSQL the server's own process takes another."""
    cores = os.cpu_count() or 1
    return max(1, min(MAX_PARTS, cores if url.get_backend_name() == "sqlite" else cores // 2))


def _query(selected: Sequence[str], measurement_id: int, start: int, end: int | None) -> str:
    upto = "" if end is None else f" AND ordinal < {end}"
    return (
        f"SELECT {', '.join(selected)} FROM estimates "  # noqa: S608 - our own names
        f"WHERE measurement_id = {measurement_id} AND ordinal >= {start}{upto} ORDER BY ordinal"
    )


def _copy(url: URL, query: str, file: Path) -> None:
    backend = url.get_backend_name()
    plain = url.set(drivername=backend).render_as_string(hide_password=False)
    database = url.database if backend == "sqlite" else plain
    asked = json.dumps({"backend": backend, "database": database, "query": query, "file": str(file)})
    command = [sys.executable, "-m", "app.flow.estimates.arrow"]
    done = subprocess.run(command, input=asked, text=True, capture_output=True, check=False)  # noqa: S603 - our own
    if done.returncode:
        raise RuntimeError(f"loading estimates failed: {done.stderr.strip()[-2000:]}")
