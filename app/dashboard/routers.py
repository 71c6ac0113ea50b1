"""Every page of the dashboard, into the application."""

from fastapi import FastAPI
from starlette.datastructures import State
from starlette.responses import RedirectResponse

from app.dashboard import faults
from app.dashboard.batches import router as batches_router
from app.dashboard.comparison import router as comparison_router
from app.dashboard.curriculum import router as curriculum_router
from app.dashboard.disputes import router as disputes_router
from app.dashboard.explanation import router as explanation_router
from app.dashboard.kept import Kept
from app.dashboard.live import Pulse
from app.dashboard.live import router as live_router
from app.dashboard.overview import LAW_EVERY_S
from app.dashboard.overview import router as overview_router
from app.dashboard.problem import router as problem_router
from app.dashboard.problems import router as problems_router
from app.dashboard.run import router as run_router
from app.dashboard.runs import router as runs_router
from app.dashboard.signing import HOME
from app.dashboard.signing import router as signing_router
from app.dashboard.statics import router as statics_router
from app.dashboard.store import LiveStore
from app.dashboard.workers import router as workers_router
from app.db.engine import Database

ROUTERS = (
    signing_router,
    statics_router,
    live_router,
    overview_router,
    problems_router,
    problem_router,
    disputes_router,
    workers_router,
    curriculum_router,
    batches_router,
    explanation_router,
    comparison_router,  # before a run: it is no run's id
    runs_router,
    run_router,
)


def add_dashboard(app: FastAPI) -> None:
    """Add the pages, and errors as pages; call it when the handlers of the API are there."""
    for router in ROUTERS:
        app.include_router(router)
    app.add_api_route("/", lambda: RedirectResponse(HOME, 303), include_in_schema=False)
    faults.install(app)


def wire_dashboard(state: State, db: Database) -> None:
    """What pages of one process share."""
    state.pulse = Pulse(LiveStore(db))
    state.laws = Kept(LAW_EVERY_S)
