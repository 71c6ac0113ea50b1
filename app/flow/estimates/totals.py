"""How many answers of each problem got each verdict: counts by ordinal beside the posterior columns. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from app.flow.estimates.columns import FloatArray, IntArray
from app.flow.rollouts.measurements import NEVER

COUNTED = {  # field of a query -> column of an estimate's row
    "attempts": "n_counted",
    "passed": "n_passed",
    "failed": "n_failed",
    "truncated": "n_truncated",
    "timeout": "n_timeout",
    "grader_error": "n_grader_error",
    "infrastructure": "n_infrastructure",
    "checkpoint": "checkpoint_index",
}
TOTALS = ("n_groups", *COUNTED.values())


class Totals:
    """One entry a problem, by ordinal. Draws need none of it, so it is in memory only once a query asked for it."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self._arrays = {name: np.array(arrays[name], np.int32) for name in TOTALS}

    def __len__(self) -> int:
        """Number of problems."""
        return len(self._arrays["n_groups"])

    def put(self, row: Mapping[str, Any]) -> None:
        """Copy a committed estimate row; one that is newer here already stays."""
        ordinal = row["ordinal"]
        if ordinal >= len(self) or row["n_groups"] <= self._arrays["n_groups"][ordinal]:
            return
        for name, array in self._arrays.items():
            array[ordinal] = row[name]

    def number(self, field: str, rows: IntArray) -> FloatArray:
        """A field of a query for some rows; NaN for the checkpoint of a problem never measured."""
        values = self._arrays[COUNTED[field]][rows].astype(np.float64)
        return np.where(values == NEVER, np.nan, values) if field == "checkpoint" else values
