"""A batch as JSON, built from its arrays without an object an item."""

import datetime as dt
from typing import Any

import numpy as np
import orjson

from app.flow.estimates.served import ORDINALS
from paced.wire import BatchState

OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z
# single precision: seven digits of an estimate are more than is known of it
COLUMNS = {
    "ordinals": ORDINALS,
    "problem_ids": "<i8",
    "pass_rates": "<f4",
    "weights": "<f4",
    "draw_probabilities": "<f4",
    "loss_weights": "<f4",
    "posteriors": "<f4",  # the estimator's two numbers of each item, one after the other
}
ARRAYS = {
    "problem_id": "problem_ids",
    "pass_rate": "pass_rates",
    "weight": "weights",
    "draw_probability": "draw_probabilities",
    "loss_weight": "loss_weights",
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


def unpacked(row: dict[str, Any], column: str) -> Any:
    """The array of a batch's column."""
    return np.frombuffer(row[column], COLUMNS[column])


def as_sent(row: dict[str, Any]) -> dict[str, list[Any]]:
    """The arrays as a client reads them from JSON: in the shortest form that single precision needs."""
    found: dict[str, list[Any]] = orjson.loads(encoded({name: unpacked(row, c) for name, c in ARRAYS.items()}))
    return found


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
        **{name: unpacked(row, column) for name, column in ARRAYS.items()},
        "problems": problems,
    }


def encoded(content: Any) -> bytes:
    """JSON bytes."""
    return orjson.dumps(content, option=OPTIONS)
