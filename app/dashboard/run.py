"""One training job with its curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request

from app.dashboard.choice import Choice, chosen
from app.dashboard.curves import STAGES, marks, run_figure, stage_names
from app.dashboard.figures import Figure, Json, axis, layout
from app.dashboard.frontier import in_part
from app.dashboard.twins import page
from app.flow.training.comparing import N_BUCKETS, Curves
from app.flow.training.holdout import HoldoutStep
from app.flow.training.series import Band, enveloped
from paced.wholes import measured_whole
from paced.wire import Run, Stage

router = APIRouter(include_in_schema=False)
SHOWN = {
    "kl_per_token": (
        "KL to the teacher",
        "nats a token",
        "The dashed line is the switch to reverse KL.",
    ),
    "loss": ("Loss", "loss", ""),
    "grad_norm": ("Gradient norm", "norm", "Before clipping."),
    "tokens_per_s": ("Tokens a second", "tokens/s", "Trained on, over the whole step."),
    "frontier_share": ("Share of batches on the frontier", "share", "Problems with 0.1 < p < 0.9 in each batch."),
}
N_BATCHES = 64  # newest, for the distribution of loss weights
PATIENCE_S = 1.0  # for counts of old checkpoints
LIVE = ("runs", "observations", "checkpoints")
Z = 1.96  # of a central 95 % interval


@dataclass(frozen=True, slots=True)
class RunPoint:
    """One bucket of one metric."""

    metric: str
    step: float
    low: float
    mean: float
    high: float


@dataclass(frozen=True, slots=True)
class RunPage:
    """One run: its settings, its steps in short, the hold-out at its checkpoints, and its newest loss weights."""

    choice: Choice
    run: Run
    curriculum: str
    metrics: dict[str, Band]
    switches: list[float]
    stages: list[Stage]
    last_x: float
    holdout: list[HoldoutStep]
    loss_weights: dict[str, list[float]]
    smooth: int

    @property
    def rows(self) -> list[RunPoint]:
        """The CSV: a line for each point drawn."""
        parts = {name: made.lists() for name, made in self.metrics.items()}
        return [
            RunPoint(name, *values)
            for name, made in parts.items()
            for values in zip(*(made[part] for part in ("x", "low", "mean", "high")), strict=True)
        ]

    @property
    def settings(self) -> list[tuple[str, str]]:
        """The configuration, by name."""
        return [(name, str(value)) for name, value in sorted(self.run.config.items())]


def figures(found: RunPage) -> dict[str, Figure]:
    """The page's figures; those of metrics that the trainer does not send are left out."""
    shapes = marks(found.switches)
    names = stage_names(found.stages, found.switches, found.last_x)
    made = {
        name: run_figure(title, unit, found.metrics[name], shapes, names if name == "kl_per_token" else [], about)
        for name, (title, unit, about) in SHOWN.items()
        if name in found.metrics
    }
    made["holdout"] = _holdout(found.holdout, shapes)
    made["loss_weights"] = _loss_weights(found.loss_weights)
    order = ["kl_per_token", "holdout", "loss", "grad_norm", "tokens_per_s", "loss_weights", "frontier_share"]
    return {name: made[name] for name in order if name in made}


def _holdout(steps: Sequence[HoldoutStep], shapes: list[Json]) -> Figure:
    whole = measured_whole([one.point for one in steps])
    drawn, parts = ([one for one in steps if (one.point in whole) == is_whole] for is_whole in (True, False))
    half = [None if one.point.se is None else Z * one.point.se for one in drawn]
    marked = {
        "type": "scatter",
        "mode": "lines+markers",
        "marker": {"size": 8},
        "line": {"color": "$green", "width": 2},
    }
    bars = {"type": "data", "array": half, "color": "$green", "thickness": 1.5}
    rates = [one.point.pass_rate for one in drawn]
    line = {**marked, "x": [one.step for one in drawn], "y": rates, "error_y": bars, "name": "hold-out"}
    return Figure(
        title="Hold-out pass rate",
        data=[line, in_part([one.step for one in parts], [one.point for one in parts])],
        layout=layout(xaxis=axis("step", rangemode="tozero"), yaxis=axis("pass rate", range=[0, 1]), shapes=shapes),
        columns=("step", "checkpoint", "pass rate", "± 95 %", "problems"),
        rows=[
            (one.step, one.point.checkpoint_index, one.point.pass_rate, Z * (one.point.se or 0.0), one.point.n_problems)
            for one in steps
        ],
        about="On problems never trained on, at the checkpoint it began from and those it wrote; hollow points are of "
        "a part of the problems.",
    )


def _loss_weights(by_stage: dict[str, list[float]]) -> Figure:
    top = max((value for values in by_stage.values() for value in values), default=1.0)
    edges = np.linspace(0.0, max(top, 1e-9), 21)
    middles = ((edges[:-1] + edges[1:]) / 2).tolist()
    counts = {stage: np.histogram(values, edges)[0] / len(values) for stage, values in by_stage.items()}
    looks = {Stage.FORWARD_KL.value: "$blue", Stage.REVERSE_KL.value: "$orange"}
    traces = [
        {
            "type": "bar",
            "x": middles,
            "y": shares.tolist(),
            "name": STAGES[Stage(stage)],
            "marker": {"color": looks[stage]},
        }
        for stage, shares in counts.items()
    ]
    return Figure(
        title="Loss weights",
        data=traces,
        layout=layout(
            xaxis=axis("factor of a problem's loss", rangemode="tozero"),
            yaxis=axis("share of problems", tickformat=".0%"),
            barmode="group",
        ),
        columns=("from", "to", *(STAGES[Stage(stage)] for stage in counts)),
        rows=[
            (f"{edges[i]:.2f}", f"{edges[i + 1]:.2f}", *(f"{shares[i]:.1%}" for shares in counts.values()))
            for i in range(len(middles))
            if counts
        ],
        about=f"Of the newest {N_BATCHES} batches: factors near 1 say that the draw does the weighting.",
    )


@page(router, "/runs/{run_id}", "run.html", rows=RunPoint, figures=figures, live=LIVE)
async def run(request: Request, run_id: str, smooth: Annotated[int, Query(ge=1, le=10_000)] = 1) -> RunPage:
    """The page of one run."""
    state: Any = request.app.state
    found = await state.training.get(run_id)
    choice = await chosen(request, None, found.curriculum_id)
    names = sorted(await state.training.metric_names(run_id) & set(SHOWN))
    curves: Curves = await state.training.curves(run_id, names)
    weights: dict[str, list[float]] = {}
    for _step, stage, values in await state.batches.loss_weights(run_id, N_BATCHES):
        weights.setdefault(stage.value, []).extend(values.tolist())
    stages = curves.stages
    return RunPage(
        choice=choice,
        run=found,
        curriculum=choice.curriculum.name if choice.curriculum else "",
        metrics={name: enveloped(curves.series(name), smooth, N_BUCKETS) for name in names},
        switches=curves.switches,
        stages=[stage for i, stage in enumerate(stages) if i == 0 or stages[i - 1] != stage],
        last_x=float(curves.x[-1]) if len(curves.x) else 0.0,
        holdout=await state.training.holdout(found, PATIENCE_S),
        loss_weights=weights,
        smooth=smooth,
    )
