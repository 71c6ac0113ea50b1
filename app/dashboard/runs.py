"""Training jobs of a measurement, with their newest numbers."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request

from app.dashboard.choice import Choice, Chosen
from app.dashboard.twins import page
from paced.wire import RunState, Stage

router = APIRouter(include_in_schema=False)
MAX_RUNS = 500
KEY_METRICS = ("loss", "kl_per_token", "grad_norm", "tokens_per_s")


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run with its newest numbers; None where its trainer sends none."""

    run_id: str
    name: str
    curriculum: str
    state: RunState
    stage: Stage | None
    last_step: int | None
    loss: float | None
    kl_per_token: float | None
    grad_norm: float | None
    tokens_per_s: float | None
    created_at: dt.datetime
    updated_at: dt.datetime


@dataclass(frozen=True, slots=True)
class RunsPage:
    """Runs of the measurement's curricula, the newest first."""

    choice: Choice
    rows: Sequence[RunRow]


@page(router, "/runs", "runs.html", rows=RunRow, live=("runs",))
async def runs(request: Request, choice: Chosen) -> RunsPage:
    """The page of one measurement's runs."""
    training: Any = request.app.state.training
    names = {each.curriculum_id: each.name for each in choice.curricula}
    found = await training.of_curricula(list(names), MAX_RUNS)
    newest = await training.newest([run.run_id for run in found])
    rows = []
    for run in found:
        point = newest.get(run.run_id)
        values = dict(point.values) if point else {}
        if values.get("duration_s"):
            values.setdefault("tokens_per_s", values.get("n_tokens", 0.0) / values["duration_s"])
        rows.append(
            RunRow(
                run_id=run.run_id,
                name=run.name,
                curriculum=names[run.curriculum_id],
                state=run.state,
                stage=point.stage if point else None,
                last_step=run.last_step,
                **{name: values.get(name) for name in KEY_METRICS},
                created_at=run.created_at,
                updated_at=run.updated_at,
            )
        )
    return RunsPage(choice, rows)
