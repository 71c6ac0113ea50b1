"""Curricula: presets resolved, versions kept, hold-out guarded."""

import datetime as dt
import hashlib
from typing import Any

from app.clock import Clock
from app.errors import Conflict
from app.flow.curricula.admission import admits_all, warnings
from app.flow.curricula.rule import PRESETS, Rule
from app.flow.curricula.store import CurriculumStore, Version
from app.flow.estimates.estimators import make_estimator
from app.flow.estimates.finding import Found, Wanted
from app.flow.estimates.selecting import Weighing
from app.flow.estimates.service import EstimateService
from app.flow.rollouts.measurements import measurement_number
from app.flow.rollouts.service import RolloutService
from app.ids import new_id, numbered
from paced.wire import Curriculum, CurriculumCreate, CurriculumUpdate, MeasurementCreate


class CurriculumService:
    """Stage 5 of the flow."""

    def __init__(
        self, store: CurriculumStore, rollouts: RolloutService, estimates: EstimateService, clock: Clock
    ) -> None:
        self._store = store
        self._rollouts = rollouts
        self._estimates = estimates
        self._clock = clock

    async def create(self, body: CurriculumCreate) -> Curriculum:
        """Create a curriculum and the measurement it needs; the same one again is returned."""
        request_hash = hashlib.sha256(body.model_dump_json().encode()).hexdigest()
        for known in await self._store.page(None, body.name, None, 1):
            return _public(_same(known, request_hash))
        rule = PRESETS[body.preset].changed(body)
        parts = body.model_dump(include=set(MeasurementCreate.model_fields))
        measurement = await self._rollouts.measure(MeasurementCreate(**parts), body.holdout_share)
        values = {
            "curriculum_id": new_id("cur"),
            "name": body.name,
            "measurement_id": measurement_number(measurement.measurement_id),
            "preset": body.preset,
            "seed": body.seed,
            "request_hash": request_hash,
            "created_at": self._clock(),
        }
        return await self._with_warnings(_same(await self._store.create(values, rule), request_hash))

    async def update(self, curriculum_id: str, body: CurriculumUpdate) -> Curriculum:
        """Change a running curriculum; the next draw follows."""
        return await self._with_warnings(await self._store.change(curriculum_id, body, self._clock()))

    async def _with_warnings(self, row: dict[str, Any]) -> Curriculum:
        rule, number = Rule.model_validate(row["rule"]), row["measurement_id"]
        made, f = _public(row), rule.filters
        if admits_all(rule):  # the pool need not be loaded
            return made
        pool = await self._estimates.pool(number, row["n_problems"], row["state_version"], row["fork_index"])
        admitted = await self._estimates.subset(number, pool, f.tags, f.sources)
        largest = await self._store.largest_batch(row["curriculum_id"])
        return made.model_copy(update={"warnings": warnings(pool, rule, row["holdout_share"], admitted, largest)})

    async def get(self, curriculum_id: str) -> Curriculum:
        """One curriculum."""
        return _public(await self._store.get(curriculum_id))

    async def changed_at(self, curriculum_id: str, version: int) -> dt.datetime:
        """When a version was made."""
        return await self._store.changed_at(curriculum_id, version)

    async def versions(self, curriculum_id: str) -> list[Version]:
        """Every version, oldest first."""
        return await self._store.versions(curriculum_id)

    async def of_measurement(self, measurement_id: int) -> list[Curriculum]:
        """Curricula that draw by a measurement, by name."""
        return [_public(row) for row in await self._store.of_measurement(measurement_id)]

    async def find(self, curriculum_id: str, wanted: Wanted) -> Found:
        """One page of the problems that a query selects, weighed as the curriculum's draws weigh them."""
        row = await self._store.get(curriculum_id)
        rule = Rule.model_validate(row["rule"])
        weighing = Weighing(curriculum_id, make_estimator(rule.estimator), rule.kernel)
        return await self._estimates.find(row["measurement_id"], wanted, weighing)

    async def page(self, student: str | None, name: str | None, after: str | None, limit: int) -> list[Curriculum]:
        """Curricula by name."""
        return [_public(row) for row in await self._store.page(student, name, after, limit)]


def _public(row: dict[str, Any]) -> Curriculum:
    fields = {**row, **row["rule"], "measurement_id": numbered("mea", row["measurement_id"])}
    return Curriculum.model_validate(fields)


def _same(row: dict[str, Any], request_hash: str) -> dict[str, Any]:
    if row["request_hash"] != request_hash:
        raise Conflict(
            f"there is a curriculum {row['name']!r} with other settings; take another name, or "
            f"PATCH /v1/curricula/{row['curriculum_id']} to change it",
            code="already_exists",
            curriculum_id=row["curriculum_id"],
        )
    return row
