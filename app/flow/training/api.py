"""Routes of stage 7: runs, metrics, teacher references."""

from typing import Annotated, cast

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from app.auth.guard import requires
from app.flow.training.comparing import Comparison
from app.flow.training.service import TrainingService
from app.http.pages import NoQuery, PageQuery, page
from paced.wire import (
    Axis,
    Id,
    MetricPoint,
    Metrics,
    Page,
    Run,
    RunComparison,
    RunCreate,
    RunUpdate,
    Scope,
    TeacherReferences,
    TeacherReferencesQuery,
)

router = APIRouter(prefix="/v1", tags=["7 training"])
READ, TRAIN = requires(Scope.READ), requires(Scope.TRAIN)


class RunQuery(PageQuery):
    """Filters of the run list."""

    curriculum_id: Id | None = None


class CompareQuery(NoQuery):
    """What to lay over each other."""

    run_id: Annotated[list[Id], Field(min_length=1, max_length=32, description="Repeat for several runs")]
    metric: Annotated[str, Field(pattern=r'^[^"\\\x00]{1,64}$', description="Its name")] = "loss"
    by: Axis = Axis.STEP
    n_buckets: Annotated[int, Field(ge=2, le=5_000, description="Points of each series at most")] = 300
    smooth: Annotated[int, Field(ge=1, le=10_000, description="Steps in a running mean; extremes are kept")] = 1


def _training(request: Request) -> TrainingService:
    return cast("TrainingService", request.app.state.training)


@router.post("/runs", status_code=201, operation_id="create_run", dependencies=[TRAIN])
async def create(request: Request, body: RunCreate, _query: Annotated[NoQuery, Query()]) -> Run:
    """Register a training job; the same name and configuration on a curriculum is returned."""
    return await _training(request).create(body)


@router.get("/runs", operation_id="list_runs", dependencies=[READ])
async def listed(request: Request, response: Response, query: Annotated[RunQuery, Query()]) -> Page[Run]:
    """Training jobs, of one curriculum or of all."""
    items = await _training(request).page(query.curriculum_id, query.after(str), query.limit + 1)
    return page(request, response, items, query.limit, "run_id")


@router.get("/runs/compare", operation_id="compare_runs", dependencies=[READ])
async def compare(request: Request, query: Annotated[CompareQuery, Query()]) -> RunComparison:
    """One metric of several runs laid over each other, with the pooled interval of those that differ in seeds."""
    return await _training(request).compare(
        Comparison(query.run_id, query.metric, query.by, query.n_buckets, query.smooth)
    )


@router.get("/runs/{run_id}", operation_id="get_run", dependencies=[READ])
async def get(request: Request, run_id: str, _query: Annotated[NoQuery, Query()]) -> Run:
    """One training job."""
    return await _training(request).get(run_id)


@router.patch("/runs/{run_id}", operation_id="update_run", dependencies=[TRAIN])
async def change(request: Request, run_id: str, body: RunUpdate, _query: Annotated[NoQuery, Query()]) -> Run:
    """Say how a run ended, or that it goes on."""
    return await _training(request).update(run_id, body)


@router.post("/runs/{run_id}/metrics", operation_id="append_metrics", dependencies=[TRAIN])
async def append(request: Request, run_id: str, body: Metrics, _query: Annotated[NoQuery, Query()]) -> Run:
    """Store metrics; a step sent again replaces the former."""
    return await _training(request).append(run_id, body)


@router.get("/runs/{run_id}/metrics", operation_id="list_metrics", dependencies=[READ])
async def metrics(
    request: Request, response: Response, run_id: str, query: Annotated[PageQuery, Query()]
) -> Page[MetricPoint]:
    """Metrics of a run by step."""
    items = await _training(request).metrics(run_id, query.after(int), query.limit + 1)
    return page(request, response, items, query.limit, "step")


@router.put("/teacher-references", status_code=204, operation_id="store_references", dependencies=[TRAIN])
async def put_references(request: Request, body: TeacherReferences, _query: Annotated[NoQuery, Query()]) -> None:
    """Store teacher texts, one a problem."""
    await _training(request).put_references(body)


@router.post("/teacher-references/query", operation_id="query_references", dependencies=[READ])
async def references(
    request: Request, body: TeacherReferencesQuery, _query: Annotated[NoQuery, Query()]
) -> TeacherReferences:
    """Stored teacher texts of some problems; problems without one are left out."""
    return await _training(request).references(body)
