"""Routes of stage 6: batches."""

from typing import Annotated, Literal, cast

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from app.auth.guard import requires
from app.flow.batches.body import encoded
from app.flow.batches.previews import PreviewService
from app.flow.batches.service import BatchService
from app.http.idempotency import KeyHeader, idempotency
from app.http.pages import NoQuery, PageQuery, cursor_at, link_next
from paced.wire import (
    Batch,
    BatchAck,
    Batches,
    BatchesRequest,
    BatchExplanation,
    BatchReceipt,
    BatchRequest,
    BatchState,
    CurriculumPreview,
    CurriculumUpdate,
    Id,
    Page,
    Scope,
)

router = APIRouter(prefix="/v1", tags=["6 batches"])
READ, TRAIN = requires(Scope.READ), requires(Scope.TRAIN)


class BatchQuery(NoQuery):
    """What to send along."""

    include: Annotated[Literal["ids", "problems"], Field(description="Send the texts too")] = "problems"


class BatchListQuery(PageQuery):
    """Filters of the batch list."""

    run_id: Id | None = None
    state: Annotated[BatchState | None, Field(description="As stored; an open batch may be past its time")] = None


def _batches(request: Request) -> BatchService:
    return cast("BatchService", request.app.state.batches)


def _json(content: object, status_code: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encoded(content), status_code=status_code, media_type="application/json", headers=headers)


@router.post(
    "/curricula/{curriculum_id}/batches",
    status_code=201,
    operation_id="draw_batch",
    response_model=Batch,
    dependencies=[TRAIN],
)
async def draw(
    request: Request,
    curriculum_id: str,
    body: BatchRequest,
    _query: Annotated[NoQuery, Query()],
    key: KeyHeader = None,
) -> Response:
    """Draw a weighted batch of distinct problems; the same Idempotency-Key returns the same batch."""
    return _json(await _batches(request).draw(curriculum_id, body, idempotency(key, body, curriculum_id)), 201)


@router.post(
    "/curricula/{curriculum_id}/draws",
    status_code=201,
    operation_id="draw_batches",
    response_model=Batches,
    dependencies=[TRAIN],
)
async def draw_several(
    request: Request,
    curriculum_id: str,
    body: BatchesRequest,
    _query: Annotated[NoQuery, Query()],
    key: KeyHeader = None,
) -> Response:
    """Draw several batches at once, for trainers that fetch ahead; the same Idempotency-Key returns the same ones."""
    identity = idempotency(key, body, curriculum_id)
    return _json({"items": await _batches(request).draw_several(curriculum_id, body, identity)}, 201)


@router.get(
    "/curricula/{curriculum_id}/batches", operation_id="list_batches", response_model=Page[Batch], dependencies=[READ]
)
async def listed(request: Request, curriculum_id: str, query: Annotated[BatchListQuery, Query()]) -> Response:
    """Batches of a curriculum, oldest first, ids only."""
    found = await _batches(request).page(curriculum_id, query.run_id, query.state, query.after(int), query.limit + 1)
    items = found[: query.limit]
    cursor = cursor_at(items[-1]["seq"]) if len(found) > query.limit else None
    headers = link_next(request, cursor) if cursor else None
    return _json({"items": items, "next_cursor": cursor}, headers=headers)


@router.post("/curricula/{curriculum_id}/preview", operation_id="preview_curriculum", dependencies=[READ])
async def preview(
    request: Request, curriculum_id: str, body: CurriculumUpdate, _query: Annotated[NoQuery, Query()]
) -> CurriculumPreview:
    """What a change of the curriculum would do to its draws on the present estimates; nothing is stored."""
    previews = cast("PreviewService", request.app.state.previews)
    return await previews.preview(curriculum_id, body)


@router.get("/batches/{batch_id}", operation_id="get_batch", response_model=Batch, dependencies=[READ])
async def get(request: Request, batch_id: str, query: Annotated[BatchQuery, Query()]) -> Response:
    """One batch as it was drawn."""
    return _json(await _batches(request).get(batch_id, with_problems=query.include == "problems"))


@router.post("/batches/{batch_id}/ack", operation_id="acknowledge_batch", dependencies=[TRAIN])
async def acknowledge(
    request: Request, batch_id: str, body: BatchAck, _query: Annotated[NoQuery, Query()]
) -> BatchReceipt:
    """Say that the optimiser step is done; outcomes are free observations."""
    return await _batches(request).acknowledge(batch_id, body)


@router.get("/batches/{batch_id}/explain", operation_id="explain_batch", dependencies=[READ])
async def explain(request: Request, batch_id: str, _query: Annotated[NoQuery, Query()]) -> BatchExplanation:
    """Why each problem was drawn."""
    return await _batches(request).explain(batch_id)
