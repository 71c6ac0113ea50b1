"""How an estimate's row moves by one group of graded answers. Pure."""

import datetime as dt
from typing import Any

from app.flow.estimates.columns import NAMES, observed
from app.flow.rollouts.groups import Group
from app.flow.rollouts.measurements import NEVER
from paced.wire import Verdict

QUARANTINE_AFTER = 3  # groups in a row without any verdict on the student
QUARANTINE_BASE_S = 600.0
QUARANTINE_MAX_S = 86_400.0
NOT_PASSED = {  # column suffix -> verdict
    "failed": Verdict.FAIL,
    "truncated": Verdict.TRUNCATED,
    "timeout": Verdict.TIMEOUT,
    "grader_error": Verdict.GRADER_ERROR,
    "infrastructure": Verdict.INFRASTRUCTURE,
}


def moved_row(row: dict[str, Any], group: Group, now: dt.datetime, *, is_on_line: bool = True) -> dict[str, Any]:
    """A full estimate row after a group; a failed group leaves the problem due, until it is put in quarantine.

    A group that is not on the student's line of checkpoints moves the totals only.
    """
    streak = row["failure_streak"] + 1 if group.is_failure else 0
    backoff_s = min(QUARANTINE_BASE_S * 2.0 ** min(streak - QUARANTINE_AFTER, 16), QUARANTINE_MAX_S)
    is_quarantined = streak >= QUARANTINE_AFTER
    return {
        **row,
        **(observed(row, group.n_passed, group.n_counted) if is_on_line else {}),
        "n_groups": row["n_groups"] + 1,
        "n_passed": row["n_passed"] + group.n_passed,
        "n_counted": row["n_counted"] + group.n_counted,
        **{f"n_{name}": row[f"n_{name}"] + group.verdicts[verdict] for name, verdict in NOT_PASSED.items()},
        "checkpoint_index": row["checkpoint_index"] if group.is_failure else _newer(row, group),
        "measured_at": row["measured_at"] if group.is_failure else now,
        "failure_streak": streak,
        "quarantine_reason": f"{streak} groups in a row gave no verdict: {group.failure_reason}"
        if is_quarantined
        else None,
        "quarantined_until": now + dt.timedelta(seconds=backoff_s) if is_quarantined else None,
    }


def _newer(row: dict[str, Any], group: Group) -> int:
    return max(int(row["checkpoint_index"]), group.checkpoint_index, NEVER)


MOVED = (
    *NAMES,
    "n_groups",
    "n_passed",
    "n_counted",
    *(f"n_{name}" for name in NOT_PASSED),
    "checkpoint_index",
    "measured_at",
    "failure_streak",
    "quarantine_reason",
    "quarantined_until",
)


def fresh_row(row: dict[str, Any]) -> dict[str, Any]:
    """The row as it was before anything was measured."""
    start = {**dict.fromkeys(MOVED, 0), "checkpoint_index": NEVER}
    return {**row, **start, **dict.fromkeys(("measured_at", "quarantine_reason", "quarantined_until"))}
