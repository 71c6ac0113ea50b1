"""Which student, problem set and curriculum a page is about: from its address, or the newest."""

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Request

from app.errors import NotFound
from app.flow.rollouts.measurements import MeasurementName, measurement_number
from paced.wire import Curriculum


@dataclass(frozen=True, slots=True)
class Choice:
    """A measurement and one of its curricula, among all there are; None where there is none yet."""

    measurements: list[MeasurementName]
    measurement: MeasurementName | None
    curricula: list[Curriculum]
    curriculum: Curriculum | None

    @property
    def query(self) -> str:
        """The choice as an address holds it."""
        chosen = {}
        if self.measurement is not None:
            chosen["measurement"] = self.measurement.measurement_id
        if self.curriculum is not None:
            chosen["curriculum"] = self.curriculum.curriculum_id
        return urlencode(chosen)

    @property
    def number(self) -> int:
        """The measurement's row number."""
        assert self.measurement is not None
        return measurement_number(self.measurement.measurement_id)


async def chosen(request: Request, measurement: str | None = None, curriculum: str | None = None) -> Choice:
    """The choice of a request; NotFound for ids that are none."""
    state: Any = request.app.state
    measurements = await state.rollouts.names()
    if curriculum is not None and measurement is None:
        measurement = (await state.curricula.get(curriculum)).measurement_id
    taken = _named(measurements, "measurement", measurement)
    if taken is None:
        return Choice(measurements, None, [], None)
    curricula = await state.curricula.of_measurement(measurement_number(taken.measurement_id))
    return Choice(measurements, taken, curricula, _named(curricula, "curriculum", curriculum))


def _named(items: list[Any], kind: str, wanted: str | None) -> Any:
    """The item with this id, or without one the newest."""
    if wanted is None:
        return max(items, key=lambda item: item.created_at, default=None)
    for item in items:
        if getattr(item, f"{kind}_id") == wanted:
            return item
    raise NotFound(f"there is no {kind} {wanted!r} here; choose one from the list at the top of /overview")


Chosen = Annotated[Choice, Depends(chosen)]
