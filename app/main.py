"""The composition root: settings in, one FastAPI application out."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog
from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse, Response

from app import telemetry
from app.alarms.api import router as alarms_router
from app.alarms.service import AlarmService
from app.auth.api import links_router
from app.auth.api import router as keys_router
from app.auth.guard import AuthMiddleware, requires
from app.auth.service import KeyService, private_text
from app.auth.sessions import SessionService
from app.auth.store import KeyStore
from app.clock import Clock, utc_now
from app.dashboard.routers import add_dashboard, wire_dashboard
from app.db.engine import Database
from app.db.migrate import ensure_current
from app.flow import STAGES
from app.flow.batches.api import router as batches_router
from app.flow.batches.draws import DrawStore
from app.flow.batches.previews import PreviewService
from app.flow.batches.service import BatchService
from app.flow.batches.standing import StandingService
from app.flow.batches.store import BatchStore
from app.flow.curricula.api import router as curricula_router
from app.flow.curricula.service import CurriculumService
from app.flow.curricula.store import CurriculumStore
from app.flow.estimates.api import router as estimates_router
from app.flow.estimates.finding import Finder
from app.flow.estimates.following import ChangeStore, Follower
from app.flow.estimates.forking import Rewinder
from app.flow.estimates.history import History, HistoryStore
from app.flow.estimates.pools import Pools
from app.flow.estimates.reviewing import ReviewCounting
from app.flow.estimates.served import Served, ServedStore
from app.flow.estimates.service import EstimateService
from app.flow.estimates.store import EstimateStore
from app.flow.problems.api import router as problems_router
from app.flow.problems.decisions import DecisionStore
from app.flow.problems.service import ProblemService
from app.flow.problems.store import ProblemStore
from app.flow.problems.texts_api import router as texts_router
from app.flow.rollouts.api import router as rollouts_router
from app.flow.rollouts.disputes import DisputeStore
from app.flow.rollouts.measurements import MeasurementStore
from app.flow.rollouts.regrading import RegradingStore
from app.flow.rollouts.review import ReviewService
from app.flow.rollouts.review_api import router as review_router
from app.flow.rollouts.reviews import ReviewStore
from app.flow.rollouts.service import RolloutService
from app.flow.rollouts.store import LeaseStore
from app.flow.rollouts.workers import WorkerStore
from app.flow.students.api import router as students_router
from app.flow.students.service import StudentService
from app.flow.students.store import StudentStore
from app.flow.training.api import router as training_router
from app.flow.training.holdout import Holdouts
from app.flow.training.service import TrainingService
from app.flow.training.store import TrainingStore
from app.grading import GradingService
from app.grading import router as grading_router
from app.http import document, problem_json
from app.http.etag import EtagMiddleware
from app.http.limits import BodyLimitMiddleware
from app.http.version import VersionMiddleware
from app.settings import Settings
from paced import __version__
from paced.wire import Key, Scope

log = structlog.get_logger()
ROUTERS = (
    problems_router,
    texts_router,
    students_router,
    rollouts_router,
    review_router,
    estimates_router,
    curricula_router,
    batches_router,
    training_router,
    grading_router,
    keys_router,
    links_router,
    alarms_router,
)
TAGS = [{"name": f"{place} {stage}", "description": what} for place, (stage, what) in enumerate(STAGES.items(), 1)]


def create_app(settings: Settings, clock: Clock = utc_now) -> FastAPI:
    """The service; it opens the database when it starts and closes it when it stops."""
    watch = telemetry.Telemetry()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        settings.data.mkdir(parents=True, exist_ok=True)
        app.state.schema = await asyncio.to_thread(ensure_current, settings.database_url)
        app.state.grading = GradingService(settings.graders, settings.grading_deadline_s)
        watch.registry.register(app.state.grading)
        db = Database(settings.database_url, settings.pool_size)
        try:
            wire_up(app, db, settings, clock)
            watch.registry.register(app.state.estimates)
            app.state.admin_key = await _accept_admin_key(app.state.keys, settings)
            log.info("ready", database=settings.database_url.render_as_string(), schema=app.state.schema)
            async with _following(app.state.follower), app.state.history:
                yield
        finally:
            await app.state.grading.close()
            await db.close()

    app = FastAPI(
        title="PACED",
        version=__version__,
        summary="Serves Beta-weighted batches of the problems that a student is about to learn.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=document.ERRORS,
        openapi_tags=[*TAGS, {"name": "grading"}, {"name": "keys"}, {"name": "health"}],
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.clock = clock
    problem_json.install(app)
    for router in ROUTERS:
        app.include_router(router)
    add_dashboard(app)
    _add_health(app, watch)
    document.install(app)
    app.add_middleware(EtagMiddleware)
    app.add_middleware(BodyLimitMiddleware, max_body_mb=settings.max_body_mb, max_import_mb=settings.max_import_mb)
    app.add_middleware(AuthMiddleware)
    app.add_middleware(VersionMiddleware)
    app.add_middleware(telemetry.TelemetryMiddleware, telemetry=watch)
    return app


def wire_up(app: FastAPI, db: Database, settings: Settings, clock: Clock) -> None:
    """Build the stages, left to right, and put them into the application's state."""
    state = app.state
    pepper = settings.secret or private_text(settings.data / "secret", secrets.token_urlsafe(32))
    state.db = db
    wire_dashboard(state, db)
    key_store = KeyStore(db)
    state.keys = KeyService(key_store, pepper, clock)
    state.sessions = SessionService(state.keys, key_store, clock)
    problem_store, student_store, curriculum_store = ProblemStore(db), StudentStore(db, Rewinder()), CurriculumStore(db)
    estimate_store = EstimateStore(db)
    pools = Pools(estimate_store)
    finder = Finder(estimate_store, pools, Served(ServedStore(db)), clock)
    state.estimates = EstimateService(estimate_store, pools, finder)
    state.history = History(HistoryStore(db))
    state.follower = None if db.is_sqlite else Follower(ChangeStore(db), pools)
    state.problems = ProblemService(problem_store, DecisionStore(db), clock, settings.data / "spool")
    state.students = StudentService(student_store, clock)
    leases = LeaseStore(db, state.estimates)
    state.rollouts = RolloutService(
        MeasurementStore(db), leases, WorkerStore(db), student_store, clock, settings.idle_retry_s
    )
    state.review = ReviewService(RegradingStore(db, state.estimates), DisputeStore(db), ReviewStore(db), clock)
    state.review_counting = ReviewCounting(db, clock)
    state.curricula = CurriculumService(curriculum_store, state.rollouts, state.estimates, clock)
    batches = BatchStore(db, state.estimates)
    state.batches = BatchService(
        batches, DrawStore(db), problem_store, curriculum_store, state.estimates, student_store, clock
    )
    state.previews = PreviewService(curriculum_store, state.estimates, clock)
    state.standing = StandingService(batches, curriculum_store, state.estimates, clock)
    holdouts = Holdouts(curriculum_store, student_store, state.history)
    state.training = TrainingService(TrainingStore(db), holdouts, clock)
    state.alarms = AlarmService(state.rollouts, state.estimates, state.history, state.follower)


@asynccontextmanager
async def _following(follower: Follower | None) -> AsyncIterator[None]:
    """What other API processes write is read meanwhile; on SQLite there is no other."""
    if follower is None:
        yield
        return
    task = asyncio.create_task(follower.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _accept_admin_key(keys: KeyService, settings: Settings) -> Key:
    key = settings.admin_key or private_text(settings.data / "admin.key", secrets.token_urlsafe(32))
    return await keys.accept(key, "admin")


def _add_health(app: FastAPI, watch: telemetry.Telemetry) -> None:
    @app.get("/healthz", tags=["health"], operation_id="healthz", responses=_shown(status="ok"))
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    ready = _shown(status="ready", version=__version__, schema="0001", database="sqlite")

    @app.get("/readyz", tags=["health"], operation_id="readyz", responses=ready)
    async def readyz(request: Request) -> dict[str, str]:
        """The database answers and has the right schema."""
        db: Database = request.app.state.db
        await db.read(lambda conn: conn.exec_driver_sql("SELECT 1"))
        return {
            "status": "ready",
            "version": __version__,
            "schema": request.app.state.schema,
            "database": "sqlite" if db.is_sqlite else "postgresql",
        }

    text = {"text/plain": {"example": 'paced_http_requests_total{method="GET",route="/healthz",status="200"} 1.0'}}

    @app.get(
        "/metrics",
        tags=["health"],
        operation_id="metrics",
        dependencies=[requires(Scope.READ)],
        response_class=PlainTextResponse,
        responses={200: {"content": text}},
    )
    async def metrics() -> Response:
        """Prometheus metrics of this process."""
        return Response(watch.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _shown(**example: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": example}}}}
