"""Which problems of a measurement an export takes, and the weight that it gives them."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from paced import wire
from paced.client import Client
from paced.errors import PacedError

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Selection:
    """Pass rates from `band[0]` to `band[1]`, both included; the `top` problems by weight, heaviest first.

    With either, only problems that a batch could hold are taken: measured, ready, and not held out unless
    `with_holdout`. Without, every problem is.
    """

    band: tuple[float, float] | None = None
    top: int | None = None
    alpha: float = 1.0
    beta: float = 1.0
    with_holdout: bool = False

    def __post_init__(self) -> None:
        if self.band is not None and not 0 <= self.band[0] <= self.band[1] <= 1:
            raise PacedError(f"a band of pass rates lies between 0 and 1, lowest first; {self.band} does not")

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return self.band is None and self.top is None

    def weight(self, pass_rate: float | None) -> float | None:
        """w(p) = p^alpha (1 - p)^beta at the posterior mean, relative to its largest value; None if not measured."""
        if pass_rate is None:
            return None
        a, b = self.alpha, self.beta
        peak = a / (a + b) if a + b else 0.5
        return float((pass_rate**a * (1 - pass_rate) ** b) / (peak**a * (1 - peak) ** b))

    def chosen(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows to export, each with its `weight`."""
        weighed = ({**row, "weight": self.weight(row["pass_rate"])} for row in rows)
        if self.is_whole:
            return weighed
        kept = filter(self._may_be_trained, weighed)
        if self.top is None:
            return kept
        return iter(heapq.nsmallest(self.top, kept, key=lambda row: (-row["weight"], row["ordinal"])))

    def _may_be_trained(self, row: Row) -> bool:
        if row["pass_rate"] is None or row["state"] != wire.ProblemState.READY:
            return False
        is_inside = self.band is None or self.band[0] <= row["pass_rate"] <= self.band[1]
        return is_inside and (self.with_holdout or not row["is_holdout"])


def rows_of(client: Client, measurement: wire.Measurement) -> Iterator[Row]:
    """Every problem of a measurement with its pass rate, by ordinal."""
    estimates = client.estimates(measurement.measurement_id, limit=1000)
    for problem in client.problems(measurement.problem_set, limit=1000):
        estimate = next(estimates, None)
        if estimate is None:
            return  # imported meanwhile
        yield {**problem.model_dump(mode="json"), **estimate.model_dump(mode="json")}


def only_measurement(client: Client) -> wire.Measurement:
    """The service's one measurement; raises PacedError where there is none or a choice."""
    found = list(client.measurements())
    if len(found) == 1:
        return found[0]
    if not found:
        raise PacedError("there is no measurement yet; a curriculum makes one")
    shown = ", ".join(f"{m.measurement_id} ({m.student} on {m.problem_set})" for m in found[:20])
    raise PacedError(f"there are {len(found)} measurements, name one: {shown}")
