"""The seven stages in a line each: how much there is, how fast it grows, how old the newest is."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from app.dashboard.choice import Choice
from app.flow import STAGES
from app.flow.batches.summaries import BatchSummary
from app.flow.estimates.pools import Pool
from paced.wire import BatchState

N_BATCHES = 200  # newest, of which rates are made
WINDOW = dt.timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class StageLine:
    """`count` of `what`, a note, how many a minute lately, and when the newest came."""

    stage: str
    count: int | None
    what: str
    note: str
    per_min: float | None
    newest_at: dt.datetime | None


async def lines(state: Any, choice: Choice, pool: Pool, batches: list[BatchSummary]) -> list[StageLine]:
    """A line for each stage, in the order of the flow."""
    made = {
        "problems": await _problems(state, choice),
        "students": await _students(state, choice),
        "rollouts": await _rollouts(state, choice, pool),
        "estimates": await _estimates(state, choice, pool),
        "curricula": await _curricula(state, choice),
        "batches": _batches(batches, state.clock()),
        "training": await _training(state, choice),
    }
    return [StageLine(stage, *made[stage]) for stage in STAGES]


Parts = tuple[int | None, str, str, float | None, dt.datetime | None]


async def _problems(state: Any, choice: Choice) -> Parts:
    assert choice.measurement is not None
    found = await state.problems.get_set(choice.measurement.problem_set)
    at = await state.problems.imported_at(found.name)
    note = f"{found.n_flagged:,} flagged" if found.n_flagged else "none flagged"
    return found.n_problems, "problems", note, None, at or found.created_at


async def _students(state: Any, choice: Choice) -> Parts:
    assert choice.measurement is not None
    latest = (await state.students.get(choice.measurement.student)).latest_checkpoint
    if latest is None:
        return 0, "checkpoints", "none registered", None, None
    return latest.index + 1, "checkpoints", f"newest is {latest.index}", None, latest.created_at


async def _rollouts(state: Any, choice: Choice, pool: Pool) -> Parts:
    pace = await state.rollouts.pace(choice.number)
    late = f", {pace.n_late} late" if pace.n_late else ""
    n_groups = int(pool.n_groups.sum())
    return n_groups, "groups", f"{pace.n_live} live leases{late}", pace.groups_per_min, pace.last_seen_at


async def _estimates(state: Any, choice: Choice, pool: Pool) -> Parts:
    assert choice.measurement is not None
    latest = (await state.students.get(choice.measurement.student)).latest_checkpoint
    columns = pool.columns
    is_measured = pool.is_ready & (columns.last_counted > 0)
    n_measured, n_ready = int(is_measured.sum()), int(pool.is_ready.sum())
    n_newest = 0 if latest is None else int((is_measured & (columns.belief_index == latest.index)).sum())
    return n_measured, "measured", f"of {n_ready:,}; {n_newest:,} at the newest checkpoint", None, None


async def _curricula(state: Any, choice: Choice) -> Parts:
    found = choice.curriculum
    if found is None:
        return 0, "curricula", "none yet", None, None
    at = await state.curricula.changed_at(found.curriculum_id, found.version)
    return found.version, "version" if found.version == 1 else "versions", found.name, None, at


def _batches(batches: list[BatchSummary], now: dt.datetime) -> Parts:
    if not batches:
        return 0, "batches", "none drawn", None, None
    n_open = sum(batch.state == BatchState.OPEN for batch in batches)
    recent = [batch for batch in batches if now - batch.created_at < WINDOW]
    is_cut = len(recent) == N_BATCHES  # there were more
    window = max(now - batches[-1].created_at, dt.timedelta(seconds=1)) if is_cut else WINDOW
    note = f"{batches[0].n_served:,} problems served; {n_open} open"
    return batches[0].seq + 1, "batches", note, len(recent) * dt.timedelta(minutes=1) / window, batches[0].created_at


async def _training(state: Any, choice: Choice) -> Parts:
    if choice.curriculum is None:
        return 0, "runs", "none yet", None, None
    runs = await state.training.page(choice.curriculum.curriculum_id, None, 1000)
    if not runs:
        return 0, "runs", "none yet", None, None
    newest = max(runs, key=lambda run: run.updated_at)
    step = "no step yet" if newest.last_step is None else f"step {newest.last_step:,}"
    return len(runs), "run" if len(runs) == 1 else "runs", f"{newest.name}: {step}", None, newest.updated_at
