"""Is the student learning, where is its frontier, are rollouts being wasted: one page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request

from app.dashboard import frontier
from app.dashboard.choice import Choice, Chosen
from app.dashboard.figures import Figure
from app.dashboard.kept import Kept
from app.dashboard.stages import N_BATCHES, StageLine, lines
from app.dashboard.twins import page
from app.flow.batches.summaries import BatchSummary
from app.flow.estimates.history import Spread
from app.flow.estimates.pools import Pool
from paced.wholes import measured_whole
from paced.wire import Alarm, Curriculum, CurriculumPreview, CurriculumUpdate, Frontier, HoldoutPoint

router = APIRouter(include_in_schema=False)
PATIENCE_S = 0.15
LAW_EVERY_S = 3.0
LIVE = ("problems", "checkpoints", "leases", "observations", "curricula", "batches", "open_batches", "runs")


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page shows.

    `is_newest` is false where `law` is some seconds old, `is_complete` while old checkpoints are still being counted.
    """

    choice: Choice
    rows: list[StageLine]
    frontier: Frontier | None
    law: CurriculumPreview | None
    spreads: list[Spread]
    is_newest: bool
    is_complete: bool
    batches: list[BatchSummary]
    alarms: Sequence[Alarm] = ()

    @property
    def holdout(self) -> list[HoldoutPoint]:
        """Where the hold-out was measured whole, by checkpoint."""
        return measured_whole([spread.holdout for spread in self.spreads if spread.holdout is not None])


def figures(found: Overview) -> dict[str, Figure]:
    """The page's figures."""
    if found.frontier is None:
        return {}
    kernel = None if found.choice.curriculum is None else found.choice.curriculum.kernel
    made = {
        "histogram": frontier.histogram(found.frontier, found.law, kernel),
        "heat": frontier.heat(found.spreads),
        "holdout": frontier.holdout(found.spreads),
        "rollouts": frontier.rollouts(found.spreads),
    }
    if found.law is not None:
        made["draws"] = frontier.draws(found.batches)
        made["tags"] = frontier.tags(found.law)
    return made


@page(router, "/overview", "overview.html", rows=StageLine, figures=figures, live=LIVE)
async def overview(request: Request, choice: Chosen) -> Overview:
    """The page of one measurement and curriculum."""
    state: Any = request.app.state
    if choice.measurement is None:
        return Overview(choice, [], None, None, [], True, True, [])
    number, law, batches = choice.number, None, []
    pool = await state.estimates.current(number)
    is_newest = True
    if choice.curriculum is not None:
        law, is_newest = await present(state, choice.curriculum, pool)
        batches = await state.batches.newest(choice.curriculum.curriculum_id, None, N_BATCHES)
    spreads, is_complete = await state.history.spreads(number, PATIENCE_S)
    found = await state.estimates.frontier(number)
    rows = await lines(state, choice, pool, batches)
    alarms = await state.alarms.check(choice.measurement.measurement_id, patience_s=PATIENCE_S)
    return Overview(choice, rows, found, law, spreads, is_newest, is_complete, batches, alarms)


async def present(state: Any, curriculum: Curriculum, pool: Pool) -> tuple[CurriculumPreview, bool]:
    """Draws by a curriculum as it is, and whether they are by the newest estimates."""
    version = (id(pool), pool.n_moves, curriculum.version)

    async def make() -> CurriculumPreview:
        found: CurriculumPreview = await state.previews.preview(curriculum.curriculum_id, CurriculumUpdate())
        return found

    laws: Kept[CurriculumPreview] = state.laws
    return await laws.get(curriculum.curriculum_id, version, make, PATIENCE_S)
