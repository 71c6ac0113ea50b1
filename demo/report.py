"""What the demo measured, from the service's own records alone."""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from paced import Client, wire

FRONTIER = (0.1, 0.9)


@dataclass(frozen=True, slots=True)
class Point:
    """The hold-out at one checkpoint: mean pass rate, standard error over problems, answers counted."""

    pass_rate: float
    se: float | None
    n_rollouts: int


@dataclass(frozen=True, slots=True)
class Share:
    """Share of drawn problems with 0.1 < p < 0.9 (newest group at the draw), and what a uniform draw gives."""

    weighted: float
    uniform: float


@dataclass(frozen=True, slots=True)
class Report:
    """The demo's result."""

    holdout: dict[str, Point]
    frontier_share: Share
    rollouts_on_frontier: float
    n_trained: int
    n_rollouts: int
    kinds: list[dict[str, Any]]
    minutes: float
    url: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def build(client: Client, curriculum: wire.Curriculum, run: wire.Run, minutes: float) -> Report:
    """Collect the report; every number comes from stored rollouts and batches."""
    mea = curriculum.measurement_id
    estimates = list(client.estimates(mea, limit=1000))
    histories = {e.problem_id: client.estimate(mea, e.problem_id).observations for e in estimates}
    batches = list(client.batches(curriculum.curriculum_id, run_id=run.run_id))
    trained = [e.problem_id for e in estimates if not e.is_holdout]
    groups = [o for observations in histories.values() for o in observations if o.n_counted]
    return Report(
        holdout=_holdout(client, curriculum),
        frontier_share=_share(batches, histories, trained),
        rollouts_on_frontier=float(np.mean([is_on_frontier(o.n_passed / o.n_counted) for o in groups])),
        n_trained=sum(batch.size for batch in batches),
        n_rollouts=sum(sum(o.verdicts.values()) for observations in histories.values() for o in observations),
        kinds=_kinds(client, curriculum, estimates, histories),
        minutes=minutes,
        url=client.url,
    )


def is_on_frontier(p: float) -> bool:
    """The student sometimes succeeds and sometimes fails."""
    return FRONTIER[0] < p < FRONTIER[1]


def stage_ends(client: Client, curriculum: wire.Curriculum) -> dict[str, int]:
    """Checkpoint index before training, after the forward stage, after the reverse stage."""
    by_step = {c.step: c.index for c in client.checkpoints(curriculum.student) if c.step is not None}
    forward = curriculum.schedule[0].steps or 0
    total = sum(plan.steps or 0 for plan in curriculum.schedule)
    return {"before": 0, "after_forward": by_step[forward], "after_reverse": by_step[total]}


def _holdout(client: Client, curriculum: wire.Curriculum) -> dict[str, Point]:
    points = {point.checkpoint_index: point for point in client.holdout(curriculum.measurement_id)}
    named = {name: points[index] for name, index in stage_ends(client, curriculum).items()}
    return {name: Point(point.pass_rate, point.se, point.n_rollouts) for name, point in named.items()}


def _share(
    batches: Sequence[wire.Batch], histories: dict[int, list[wire.Observation]], trained: Sequence[int]
) -> Share:
    weighted, uniform = [], []
    for batch in batches:
        known = {i: is_on_frontier(p) for i in trained if (p := _rate_at(histories[i], batch.created_at)) is not None}
        weighted += [known[i] for i in batch.problem_id if i in known]
        uniform.append(np.mean(list(known.values())))
    return Share(float(np.mean(weighted)), float(np.mean(uniform)))


def _rate_at(observations: Iterable[wire.Observation], moment: dt.datetime) -> float | None:
    for observation in observations:  # newest first
        if observation.created_at <= moment and observation.n_counted:
            return observation.n_passed / observation.n_counted
    return None


def _kinds(
    client: Client,
    curriculum: wire.Curriculum,
    estimates: Sequence[wire.Estimate],
    histories: dict[int, list[wire.Observation]],
) -> list[dict[str, Any]]:
    """Hold-out pass rate by kind of problem, at the three checkpoints."""
    tags = {p.problem_id: (p.tags or ["your own"])[0] for p in client.problems(curriculum.problem_set, limit=1000)}
    ends = stage_ends(client, curriculum)
    rows = []
    for kind in dict.fromkeys(tags.values()):
        ids = [e.problem_id for e in estimates if e.is_holdout and tags[e.problem_id] == kind]
        row: dict[str, Any] = {"kind": kind, "n_problems": len(ids)}
        for name, index in ends.items():
            groups = [o for i in ids for o in histories[i] if o.checkpoint_index == index and o.n_counted]
            row[name] = float(np.mean([o.n_passed / o.n_counted for o in groups])) if groups else None
        rows.append(row)
    return rows


def show(report: Report, console: Console) -> None:
    """The closing table."""
    table = Table(
        "hold-out pass rate", "before", "after forward KL", "after reverse KL", title="What the student learnt"
    )
    order = ("before", "after_forward", "after_reverse")
    total = [report.holdout[name] for name in order]
    table.add_row("[bold]all[/]", *(f"[bold]{p.pass_rate:.3f}[/] ± {p.se or 0:.3f}" for p in total))
    for row in report.kinds:
        cells = ("–" if row[name] is None else f"{row[name]:.2f}" for name in order)
        table.add_row(f"{row['kind']} ({row['n_problems']})", *cells)
    console.print(table)
    share = report.frontier_share
    console.print(
        f"On the frontier (0.1 < p < 0.9): {share.weighted:.0%} of {report.n_trained} trained examples "
        f"(a uniform draw: {share.uniform:.0%}), {report.rollouts_on_frontier:.0%} of the groups of "
        f"{report.n_rollouts} rollouts. {report.minutes:.1f} minutes."
    )
