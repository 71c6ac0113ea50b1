"""How much measuring training asks for: workers follow what is served, as a rate limiter follows its samplers."""

from typing import Any

from sqlalchemy import Connection, func, select

from app.db.tables import batches, curricula


def n_served(conn: Connection, measurement_id: int) -> int:
    """Problems in all batches of a measurement's curricula."""
    b, c = batches.c, curricula.c
    newest = (
        select(b.n_served)  # a running total: found by the index, however many batches there are
        .where(b.curriculum_id == c.curriculum_id)
        .order_by(b.seq.desc())
        .limit(1)
        .correlate(curricula)
        .scalar_subquery()
    )
    query = select(func.coalesce(func.sum(newest), 0)).where(c.measurement_id == measurement_id)
    return int(conn.execute(query).scalar_one())


def may_remeasure(conn: Connection, measurement: dict[str, Any]) -> bool:
    """False while workers are more than one pass over the set ahead of what was served."""
    ratio = measurement["samples_per_measurement"]
    if not ratio:
        return True
    allowed = measurement["n_problems"] + n_served(conn, measurement["measurement_id"]) / ratio
    return bool(measurement["n_remeasured"] < allowed)
