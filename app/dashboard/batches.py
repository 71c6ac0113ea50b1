"""What was drawn, newest first."""

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request

from app.dashboard.choice import Choice, Chosen
from app.dashboard.runs import MAX_RUNS
from app.dashboard.twins import page
from app.flow.batches.service import BatchService
from app.flow.batches.summaries import BatchSummary

router = APIRouter(include_in_schema=False)
MAX_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Batches:
    """A page of draws, with the names of runs by id.

    `next_below` is the draw number that the next page lies below, null on the last one.
    """

    choice: Choice
    run_id: str | None
    below: int | None
    limit: int
    rows: list[BatchSummary]
    names: dict[str, str]
    next_below: int | None

    def address(self, *, below: int | None = None, run_id: str | None = None) -> str:
        """The same list, further on or of a run alone."""
        wanted = {"run": run_id, "below": below, "limit": self.limit if self.limit != 50 else None}
        more = urlencode({name: value for name, value in wanted.items() if value is not None})
        return f"/batches?{self.choice.query}" + (f"&{more}" if more else "")


@page(router, "/batches", "batches.html", rows=BatchSummary, live=("batches", "open_batches"))
async def batches(
    request: Request,
    choice: Chosen,
    run: Annotated[str | None, Query(max_length=64)] = None,
    below: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_ROWS)] = 50,
) -> Batches:
    """Draws of one curriculum."""
    if choice.curriculum is None:
        return Batches(choice, run, below, limit, [], {}, None)
    service: BatchService = request.app.state.batches
    found = await service.newest(choice.curriculum.curriculum_id, below, limit + 1, run)
    rows = found[:limit]
    runs = await request.app.state.training.of_curricula([choice.curriculum.curriculum_id], MAX_RUNS)
    names = {made.run_id: made.name for made in runs}
    return Batches(choice, run, below, limit, rows, names, rows[-1].seq if len(found) > limit else None)
