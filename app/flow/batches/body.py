"""A batch as JSON, built from its arrays without an object an item."""

import datetime as dt
from typing import Any

import numpy as np
import orjson

from app.flow.estimates.columns import IntArray
from paced.wire import BatchState

OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z
ARRAYS = {
    "problem_id": ("problem_ids", "<i8"),
    "pass_rate": ("pass_rates", "<f8"),
    "weight": ("weights", "<f8"),
    "draw_probability": ("draw_probabilities", "<f8"),
    "loss_weight": ("loss_weights", "<f8"),
}
PLAIN = (
    "batch_id",
    "curriculum_id",
    "run_id",
    "step",
    "stage",
    "mode",
    "size",
    "created_at",
    "expires_at",
    "shortfall",
)


def unpacked(blob: bytes, dtype: str = "<i8") -> IntArray:
    """An array from its column."""
    return np.frombuffer(blob, dtype)


def effective_state(row: dict[str, Any], now: dt.datetime) -> BatchState:
    """The state with the clock taken into account: an open batch past its time is expired."""
    state = BatchState(row["state"])
    return BatchState.EXPIRED if state == BatchState.OPEN and row["expires_at"] <= now else state


def fields(row: dict[str, Any], now: dt.datetime, problems: list[dict[str, Any]] | None) -> dict[str, Any]:
    """The wire form of a batch's row, for orjson."""
    return {
        **{name: row[name] for name in PLAIN},
        "curriculum_version": row["version"],
        "state": effective_state(row, now),
        "seed": [row["seed"], row["seq"]],
        **{name: unpacked(row[column], dtype) for name, (column, dtype) in ARRAYS.items()},
        "problems": problems,
    }


def encoded(content: Any) -> bytes:
    """JSON bytes."""
    return orjson.dumps(content, option=OPTIONS)
