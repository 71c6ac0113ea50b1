"""Curricula: presets resolved, versions kept, hold-out guarded."""

import hashlib
from typing import Any

from app.clock import Clock
from app.errors import Conflict
from app.flow.curricula.rule import PRESETS
from app.flow.curricula.store import CurriculumStore
from app.flow.rollouts.measurements import measurement_number
from app.flow.rollouts.service import RolloutService
from app.ids import new_id, numbered
from paced.wire import Curriculum, CurriculumCreate, CurriculumUpdate, MeasurementCreate


class CurriculumService:
    """Stage 5 of the flow."""

    def __init__(self, store: CurriculumStore, rollouts: RolloutService, clock: Clock) -> None:
        self._store = store
        self._rollouts = rollouts
        self._clock = clock

    async def create(self, body: CurriculumCreate) -> Curriculum:
        """Create a curriculum and the measurement it needs; the same one again is returned."""
        request_hash = hashlib.sha256(body.model_dump_json().encode()).hexdigest()
        for known in await self._store.page(None, body.name, None, 1):
            return _public(_same(known, request_hash))
        rule = PRESETS[body.preset].changed(body)
        parts = body.model_dump(include={"student", "problem_set", "profile_id", "n_rollouts"})
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
        return _public(_same(await self._store.create(values, rule), request_hash))

    async def update(self, curriculum_id: str, body: CurriculumUpdate) -> Curriculum:
        """Change a running curriculum; the next draw follows."""
        return _public(await self._store.change(curriculum_id, body, self._clock()))

    async def get(self, curriculum_id: str) -> Curriculum:
        """One curriculum."""
        return _public(await self._store.get(curriculum_id))

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
