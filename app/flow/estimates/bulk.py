"""Estimate rows as arrays, however many there are."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from app.db.tables import estimates
from app.flow.estimates.columns import NAMES, dtype_of
from paced.wire import ProblemState

Arrays = dict[str, npt.NDArray[Any]]
DTYPES = {
    "problem_id": np.int64,
    "holdout_key": np.int32,
    "n_groups": np.int32,
    **{name: dtype_of(name) for name in NAMES},
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
