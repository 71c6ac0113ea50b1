"""Which rows of a pool each part of a batch is drawn from."""

from typing import Any

import numpy as np

from app.flow.batches.drawing import REST
from app.flow.curricula.rule import Rule
from app.flow.estimates.columns import IntArray
from app.flow.estimates.pools import Pool
from app.flow.estimates.service import EstimateService


async def pool_of(estimates: EstimateService, curriculum: dict[str, Any]) -> Pool:
    """The arrays that a curriculum's row draws from."""
    versions = curriculum["state_version"], curriculum["fork_index"]
    return await estimates.pool(curriculum["measurement_id"], curriculum["n_problems"], *versions)


async def subsets_of(
    estimates: EstimateService, measurement_id: int, pool: Pool, rule: Rule
) -> dict[str, IntArray | None]:
    """Rows that the filters admit, by stratum and for the rest; None is every row."""
    filters = rule.filters
    admitted = await estimates.subset(measurement_id, pool, filters.tags, filters.sources)
    found: dict[str, IntArray | None] = {REST: admitted}
    for stratum in rule.strata:
        rows = await estimates.subset(measurement_id, pool, [stratum.tag], filters.sources)
        found[stratum.tag] = _both(rows, admitted)
    return found


def _both(rows: IntArray | None, others: IntArray | None) -> IntArray | None:
    if rows is None or others is None:
        return others if rows is None else rows
    return np.intersect1d(rows, others)
