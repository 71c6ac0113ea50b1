"""Routes of stage 2: students, checkpoints, sampling profiles."""

from typing import Annotated, cast

from fastapi import APIRouter, Query, Request, Response

from app.auth.guard import requires
from app.flow.students.service import StudentService
from app.http.idempotency import KeyHeader, idempotency
from app.http.pages import NoQuery, PageQuery, page
from paced.wire import Checkpoint, CheckpointCreate, Page, Profile, ProfileCreate, Scope, Student, StudentCreate

router = APIRouter(prefix="/v1", tags=["2 students"])
READ, TRAIN = requires(Scope.READ), requires(Scope.TRAIN)


def _students(request: Request) -> StudentService:
    return cast("StudentService", request.app.state.students)


@router.post("/students", status_code=201, operation_id="create_student", dependencies=[TRAIN])
async def create(request: Request, body: StudentCreate, _query: Annotated[NoQuery, Query()]) -> Student:
    """Create a student; the same one again is returned."""
    return await _students(request).create(body)


@router.get("/students", operation_id="list_students", dependencies=[READ])
async def listed(request: Request, response: Response, query: Annotated[PageQuery, Query()]) -> Page[Student]:
    """Students by name."""
    items = await _students(request).page(query.after(str), query.limit + 1)
    return page(request, response, items, query.limit, "name")


@router.get("/students/{name}", operation_id="get_student", dependencies=[READ])
async def get(request: Request, name: str, _query: Annotated[NoQuery, Query()]) -> Student:
    """One student with its newest checkpoint."""
    return await _students(request).get(name)


@router.post("/students/{name}/checkpoints", status_code=201, operation_id="register_checkpoint", dependencies=[TRAIN])
async def register(
    request: Request, name: str, body: CheckpointCreate, _query: Annotated[NoQuery, Query()], key: KeyHeader = None
) -> Checkpoint:
    """Register new weights; rollout workers load them next.

    A parent that is not the newest checkpoint takes every estimate of the student back to that parent.
    """
    return await _students(request).register(name, body, idempotency(key, body, name))


@router.get("/students/{name}/checkpoints", operation_id="list_checkpoints", dependencies=[READ])
async def checkpoints(
    request: Request, response: Response, name: str, query: Annotated[PageQuery, Query()]
) -> Page[Checkpoint]:
    """Checkpoints of a student, oldest first."""
    items = await _students(request).checkpoints(name, query.after(int), query.limit + 1)
    return page(request, response, items, query.limit, "index")


@router.post("/sampling-profiles", status_code=201, operation_id="create_profile", dependencies=[TRAIN])
async def create_profile(request: Request, body: ProfileCreate, _query: Annotated[NoQuery, Query()]) -> Profile:
    """Store a sampling profile; the same content has the same id."""
    return await _students(request).create_profile(body)


@router.get("/sampling-profiles", operation_id="list_profiles", dependencies=[READ])
async def list_profiles(request: Request, response: Response, query: Annotated[PageQuery, Query()]) -> Page[Profile]:
    """Sampling profiles by id."""
    items = await _students(request).profiles(query.after(str), query.limit + 1)
    return page(request, response, items, query.limit, "profile_id")


@router.get("/sampling-profiles/{profile_id}", operation_id="get_profile", dependencies=[READ])
async def get_profile(request: Request, profile_id: str, _query: Annotated[NoQuery, Query()]) -> Profile:
    """One sampling profile."""
    return await _students(request).profile(profile_id)
