"""The pass rate of one problem after each of its observations: the fold that made its estimate, step by step. Pure."""

import datetime as dt
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.flow.estimates.branches import forked_row
from app.flow.estimates.columns import Columns
from app.flow.estimates.moves import fresh_row, moved_row
from app.flow.estimates.selecting import SHOWN
from app.flow.rollouts.groups import Group
from app.flow.students.lines import Line
from paced.wire import Observation, ObservationSource, Verdict


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """One observation, and the posterior shown after it: its mean and central 90 %; None before anything counts.

    `is_on_line` is False for checkpoints of an abandoned branch, which move nothing.
    """

    observation_id: int
    checkpoint_index: int
    source: ObservationSource
    n_passed: int
    n_counted: int
    verdicts: dict[str, int]
    is_on_line: bool
    pass_rate: float | None
    low: float | None
    high: float | None
    created_at: dt.datetime


def timeline(row: dict[str, Any], observations: Sequence[Observation], line: Line) -> list[HistoryPoint]:
    """A point an observation, oldest first, from the problem's estimate row and its observations.

    Each posterior is the problem's own, so that the other problems of a report need not be read.
    """
    forks = deque(line.forks)
    row = fresh_row(row)
    rows = []
    ordered = sorted(observations, key=lambda observation: observation.observation_id)
    for seen in ordered:
        while forks and forks[0].after < seen.observation_id:
            row = forked_row(row, forks.popleft())
        verdicts = Counter({Verdict(name): n for name, n in seen.verdicts.items()})
        group = Group(seen.problem_id, seen.checkpoint_index, seen.source, seen.n_passed, seen.n_counted, verdicts)
        row = moved_row(row, group, seen.created_at, is_on_line=line.holds(seen.checkpoint_index))
        rows.append(row)
    columns = Columns.of_rows(rows)
    rates = np.where(columns.first_counted > 0, SHOWN.pass_rate(columns), np.nan)
    low, high = SHOWN.interval(*SHOWN.posterior(columns))
    return [
        HistoryPoint(
            observation_id=seen.observation_id,
            checkpoint_index=seen.checkpoint_index,
            source=seen.source,
            n_passed=seen.n_passed,
            n_counted=seen.n_counted,
            verdicts=seen.verdicts,
            is_on_line=line.holds(seen.checkpoint_index),
            pass_rate=None if np.isnan(rates[i]) else float(rates[i]),
            low=None if np.isnan(rates[i]) else float(low[i]),
            high=None if np.isnan(rates[i]) else float(high[i]),
            created_at=seen.created_at,
        )
        for i, seen in enumerate(ordered)
    ]


@dataclass(frozen=True, slots=True)
class Effect:
    """The pass rate shown of a problem: as it is, and if an answer were counted as right or as wrong."""

    now: float | None
    if_right: float | None
    if_wrong: float | None


def effect(
    row: dict[str, Any], observations: Sequence[Observation], line: Line, observation_id: int, verdict: Verdict
) -> Effect:
    """What a review of one answer of an observation would do to its problem."""

    def rate(n_more: int) -> float | None:
        changed = [
            seen.model_copy(update={"n_passed": seen.n_passed + n_more})
            if seen.observation_id == observation_id
            else seen
            for seen in observations
        ]
        points = [point for point in timeline(row, changed, line) if point.is_on_line]
        return points[-1].pass_rate if points else None

    is_pass = verdict == Verdict.PASS
    return Effect(rate(0), rate(0 if is_pass else 1), rate(-1 if is_pass else 0))
