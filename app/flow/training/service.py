"""Training jobs: what they are, how they go, and what their teachers say."""

from collections.abc import Sequence

from app.clock import Clock
from app.errors import Conflict
from app.flow.training.comparing import Comparison, Curves, compare, curves, names_of
from app.flow.training.holdout import Holdouts, HoldoutStep
from app.flow.training.store import TrainingStore
from app.ids import new_id
from paced.wire import (
    Axis,
    MetricPoint,
    Metrics,
    Run,
    RunComparison,
    RunCreate,
    RunState,
    RunUpdate,
    TeacherReference,
    TeacherReferences,
    TeacherReferencesQuery,
)


class TrainingService:
    """Stage 7 of the flow."""

    def __init__(self, store: TrainingStore, holdouts: Holdouts, clock: Clock) -> None:
        self._store = store
        self._holdouts = holdouts
        self._clock = clock

    async def said_of(self, problem_id: int) -> dict[str, TeacherReference]:
        """What each teacher said on a problem, by the teacher's name."""
        return await self._store.said_of(problem_id)

    async def create(self, body: RunCreate) -> Run:
        """Register a run; the same one again is returned, another of that name refused."""
        now = self._clock()
        fields = {"run_id": new_id("run"), "state": RunState.RUNNING, "last_step": None}
        wanted = Run.model_validate({**fields, **body.model_dump(), "created_at": now, "updated_at": now})
        stored = await self._store.create(wanted)
        if stored.config != wanted.config:
            raise Conflict(
                f"curriculum {body.curriculum_id} has a run {body.name!r} with another configuration; "
                "take another name, or the same configuration to resume it",
                code="already_exists",
                run_id=stored.run_id,
            )
        return stored

    async def get(self, run_id: str) -> Run:
        """One run."""
        return await self._store.get(run_id)

    async def page(self, curriculum_id: str | None, after: str | None, limit: int) -> list[Run]:
        """Runs by id."""
        return await self._store.page(curriculum_id, after, limit)

    async def update(self, run_id: str, body: RunUpdate) -> Run:
        """Say how a run ended."""
        return await self._store.set_state(run_id, body.state, self._clock())

    async def append(self, run_id: str, body: Metrics) -> Run:
        """Store metrics."""
        return await self._store.append(run_id, body.points, self._clock())

    async def metrics(self, run_id: str, after: int | None, limit: int) -> list[MetricPoint]:
        """Metrics by step."""
        return await self._store.metrics(run_id, -1 if after is None else after, limit)

    async def compare(self, wanted: Comparison) -> RunComparison:
        """One metric of several runs."""
        return await compare(self._store, self._holdouts, wanted)

    async def holdout(self, run: Run, patience_s: float) -> list[HoldoutStep]:
        """The hold-out over a run, as far as it is counted after `patience_s` seconds."""
        return await self._holdouts.of_run(run, patience_s)

    async def curves(self, run_id: str, metrics: Sequence[str], by: Axis = Axis.STEP) -> Curves:
        """Some metrics of one run, every step."""
        return await curves(self._store, run_id, metrics, by)

    async def metric_names(self, run_id: str) -> set[str]:
        """Metrics that a run has."""
        return await names_of(self._store, run_id)

    async def of_curricula(self, curriculum_ids: Sequence[str], limit: int, *, is_other: bool = False) -> list[Run]:
        """Runs of several curricula, or of all others, the newest first."""
        return await self._store.of_curricula(curriculum_ids, limit, is_other=is_other)

    async def newest(self, run_ids: Sequence[str]) -> dict[str, MetricPoint]:
        """The newest step of each run that has one."""
        return await self._store.newest(run_ids)

    async def put_references(self, body: TeacherReferences) -> None:
        """Store teacher texts."""
        await self._store.put_references(body, self._clock())

    async def references(self, body: TeacherReferencesQuery) -> TeacherReferences:
        """Stored teacher texts."""
        return TeacherReferences(teacher=body.teacher, references=await self._store.references(body))
