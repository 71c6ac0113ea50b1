"""What a change of a curriculum would do, worked out beside the draws and stored nowhere."""

import asyncio
import datetime as dt
from typing import Any

import numpy as np

from app.clock import Clock
from app.flow.batches.drawing import REST, Subsets
from app.flow.batches.law import Law, Terms
from app.flow.batches.previewing import EDGES, USUAL_SIZE, Spread, binned, candidates, side, spread
from app.flow.batches.subsets import pool_of, subsets_of
from app.flow.curricula.admission import warnings
from app.flow.curricula.rule import Rule
from app.flow.curricula.store import CurriculumStore
from app.flow.estimates.pools import Pool
from app.flow.estimates.service import EstimateService
from paced.wire import CurriculumPreview, CurriculumUpdate, PreviewSide


class PreviewService:
    """Stage 6 of the flow, without drawing."""

    def __init__(self, curricula: CurriculumStore, estimates: EstimateService, clock: Clock) -> None:
        self._curricula = curricula
        self._estimates = estimates
        self._clock = clock

    async def preview(self, curriculum_id: str, body: CurriculumUpdate) -> CurriculumPreview:
        """Draws of the present rule and of the changed one; raises Invalid as the change itself would."""
        curriculum = await self._curricula.get(curriculum_id)
        rule = Rule.model_validate(curriculum["rule"])
        pool = await pool_of(self._estimates, curriculum)
        number, largest = curriculum["measurement_id"], await self._curricula.largest_batch(curriculum_id)
        sides: list[tuple[Rule, Subsets]] = [
            (each, await subsets_of(self._estimates, number, pool, each)) for each in (rule, rule.changed(body))
        ]
        # on a thread: a pass over a million problems would hold up the event loop
        return await asyncio.to_thread(_compared, curriculum, pool, sides, largest, self._clock())


def _compared(
    curriculum: dict[str, Any], pool: Pool, sides: list[tuple[Rule, Subsets]], largest: int, now: dt.datetime
) -> CurriculumPreview:
    share = curriculum["holdout_share"]
    made: list[tuple[Spread, PreviewSide]] = []
    known: tuple[Any, Terms] | None = None
    for rule, subsets in sides:
        if made and rule == sides[0][0]:
            made.append(made[0])  # nothing changes
            continue
        law = Law(pool, rule, share, now)
        weighed_by = rule.estimator, rule.kernel, rule.filters, rule.mode
        if known is None or known[0] != weighed_by:
            known = weighed_by, candidates(law)
        found = spread(law, law.powered(known[1]), subsets, largest or USUAL_SIZE, curriculum["seed"])
        said = warnings(pool, rule, share, subsets[REST], largest)
        made.append((found, side(law, found, largest or USUAL_SIZE, said)))
    (before, present), (after, changed) = made
    rows = np.flatnonzero(pool.is_trained(share))
    measured = rows[pool.n_groups[rows] > 0]
    p = after.pass_rate[measured]
    is_left = np.isnan(p)  # outside the filters
    p[is_left] = law.pass_rates(measured[is_left])
    return CurriculumPreview(
        curriculum_id=curriculum["curriculum_id"],
        version=curriculum["version"],
        edges=EDGES.round(10).tolist(),
        problem_shares=binned(p, np.ones(len(p))),
        n_trained=len(rows),
        n_measured=len(measured),
        batch_size=largest or None,
        moved_share=_moved(before, after) if present.n_drawable and changed.n_drawable else None,
        present=present,
        changed=changed,
    )


def _moved(before: Spread, after: Spread) -> float:
    return float(np.abs(before.drawn - after.drawn).sum() / 2.0)
