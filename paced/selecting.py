"""Which problems of a measurement an export takes, and the weight that it gives them."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

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
        """The rows to export, each with its `weight`: a curriculum's if it has one."""
        weighed = ({**row, "weight": self.weight(row["pass_rate"])} if row["weight"] is None else row for row in rows)
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


def rows_of(client: Client, listed: wire.Measurement | wire.Curriculum, query: str = "") -> Iterator[Row]:
    """The problems of a measurement that a query selects, each with its pass rate, in the query's order.

    Of a curriculum, with the weights of its draws.
    """
    for estimate in client.estimates(**named(listed), query=query, with_problems=True, limit=1000):
        row = estimate.model_dump(mode="json")
        yield {**row.pop("problem"), **row}


class Named(TypedDict, total=False):
    """The argument by which a list of estimates is asked for."""

    measurement_id: str
    curriculum_id: str


def named(listed: wire.Measurement | wire.Curriculum) -> Named:
    """The argument by which a list of estimates is asked for."""
    if isinstance(listed, wire.Curriculum):
        return {"curriculum_id": listed.curriculum_id}
    return {"measurement_id": listed.measurement_id}


def listed_by(client: Client, measurement: str | None, curriculum: str | None) -> wire.Measurement | wire.Curriculum:
    """What the options of a command name: a curriculum, a measurement, or else the only one there is."""
    if measurement and curriculum:
        raise PacedError("name either a measurement or a curriculum: a curriculum has one measurement")
    if curriculum:
        return client.curriculum(curriculum)
    return client.measurement(measurement) if measurement else only_measurement(client)


def only_measurement(client: Client) -> wire.Measurement:
    """The service's one measurement; raises PacedError where there is none or a choice."""
    found = list(client.measurements())
    if len(found) == 1:
        return found[0]
    if not found:
        raise PacedError("there is no measurement yet; a curriculum makes one")
    shown = ", ".join(f"{m.measurement_id} ({m.student} on {m.problem_set})" for m in found[:20])
    raise PacedError(f"there are {len(found)} measurements, name one: {shown}")
