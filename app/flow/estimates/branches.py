"""How rows and abilities move when a student's checkpoints branch: what an abandoned branch says, and a fork. Pure."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

from app.flow.estimates.columns import DISCOUNT
from app.flow.estimates.filters import ABILITY_DRIFT, ABILITY_VARIANCE, ALONE_DRIFT, PRIOR_VARIANCE, PROBLEM_DRIFT
from app.flow.estimates.moves import moved_row
from app.flow.estimates.skills import AbilityRows, with_beliefs
from app.flow.rollouts.groups import Group
from app.flow.students.lines import Fork, Line

FORK_VARIANCE = 0.25  # that a fork adds to a logit belief and to an ability: half a logit


def reported(
    rows: dict[int, dict[str, Any]], groups: Sequence[Group], found: AbilityRows, line: Line, now: dt.datetime
) -> list[dict[str, Any]]:
    """Full estimate rows after one report, in its order; the abilities in `found` move too.

    Groups of a checkpoint that is not on the line are counted in totals and move no posterior.
    """
    moved = [
        moved_row(rows[group.problem_id], group, now, is_on_line=line.holds(group.checkpoint_index)) for group in groups
    ]
    for group in groups:
        if group.n_counted and not line.holds(group.checkpoint_index):
            skill = rows[group.problem_id]["skill"]
            found[skill] = {**found[skill], "n_groups": found[skill]["n_groups"] + 1}
    return with_beliefs(rows, [group for group in groups if line.holds(group.checkpoint_index)], moved, found)


def forked_row(row: dict[str, Any], fork: Fork) -> dict[str, Any]:
    """An estimate row at a fork: its posterior at the parent, wider, which then stands for the new checkpoint."""
    if row["first_counted"] == 0:
        return row
    n_passed = max(fork.parent_index - row["belief_index"], 0)
    return {
        **row,
        "discounted_passed": DISCOUNT * row["discounted_passed"],
        "discounted_failed": DISCOUNT * row["discounted_failed"],
        "logit_variance": _wider(row["logit_variance"], PROBLEM_DRIFT * n_passed, PRIOR_VARIANCE),
        "alone_variance": _wider(row["alone_variance"], ALONE_DRIFT * n_passed, PRIOR_VARIANCE),
        "belief_index": fork.index,
    }


def forked_ability(row: dict[str, Any], fork: Fork) -> dict[str, Any]:
    """A skill's ability at a fork: the level at the parent, less certain."""
    drift = ABILITY_DRIFT * max(fork.parent_index - row["index"], 0)
    return {**row, "variance": _wider(row["variance"], drift, ABILITY_VARIANCE), "index": fork.index}


def _wider(variance: float, drift: float, prior: float) -> float:
    """Grown up to the prior's variance, and never less than it was."""
    return float(max(variance, min(variance + drift + FORK_VARIANCE, prior)))
