"""Why each problem of a batch was drawn, and what two other rules would have done."""

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request

from app.dashboard.choice import Choice, chosen
from app.dashboard.figures import Figure, Json, axis, layout
from app.dashboard.twins import page
from app.flow.batches.service import BatchService
from app.flow.batches.summaries import BatchSummary
from app.flow.estimates.estimators import FRONTIER
from paced.wire import EstimatorConfig, ExplainedItem, Kernel

router = APIRouter(include_in_schema=False)
SNIPPET = 120  # characters of a prompt


@dataclass(frozen=True, slots=True)
class Item:
    """One problem of a batch: what was believed of it, and how likely three rules were to draw it first.

    `belief` names the two numbers of the estimator; `times_uniform` is the chance over that of a uniform draw, null
    where the selection has no closed form.
    """

    ordinal: int
    problem_id: int
    prompt: str
    tags: list[str]
    pass_rate: float
    low: float
    high: float
    belief: dict[str, float]
    weight: float
    relative_weight: float
    draw_probability: float | None
    times_uniform: float | None
    loss_weight: float
    uniform_probability: float
    uniform_inclusion: float
    hard_filter_probability: float
    hard_filter_inclusion: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """A batch, the rule of its version, and its items in draw order."""

    choice: Choice
    batch: BatchSummary
    estimator: EstimatorConfig
    kernel: Kernel
    gamma: float
    n_eligible: int
    n_hard_filter: int
    shortfall: dict[str, Any] | None
    rows: list[Item]


def figures(found: Explanation) -> dict[str, Figure]:
    """Pass rate against chance."""
    return {"chances": _chances(found)} if found.rows else {}


def _chances(found: Explanation) -> Figure:
    drawn = [item for item in found.rows if item.times_uniform is not None]
    dots: Json = {
        "x": [item.pass_rate for item in drawn],
        "y": [item.times_uniform for item in drawn],
        "mode": "markers",
        "name": "drawn",
        "marker": {"color": "$orange", "symbol": "diamond", "size": 8, "opacity": 0.75},
        "customdata": [[item.ordinal, item.loss_weight] for item in drawn],
        "hovertemplate": "problem %{customdata[0]}<br>p %{x:.3f}<br>%{y:.2f} × uniform<br>"
        "loss weight %{customdata[1]:.2f}<extra></extra>",
    }
    weights: Json = {
        "x": [item.pass_rate for item in found.rows],
        "y": [item.loss_weight for item in found.rows],
        "mode": "markers",
        "name": "loss weight",
        "marker": {"color": "$blue", "symbol": "circle-open", "size": 8},
        "hovertemplate": "p %{x:.3f}<br>loss weight %{y:.2f}<extra></extra>",
    }
    even: Json = {"x": [0, 1], "y": [1, 1], "mode": "lines", "name": "uniform", "hoverinfo": "skip"}
    even |= {"line": {"color": "$grey", "width": 1.5, "dash": "dot"}}
    share = found.n_eligible / found.n_hard_filter if found.n_hard_filter else 0.0
    filtered: Json = {"x": [0, 0.2, 0.2, 0.8, 0.8, 1], "y": [0, 0, share, share, 0, 0], "name": "hard filter"}
    filtered |= {"mode": "lines", "line": {"color": "$green", "width": 1.5, "dash": "dash"}, "hoverinfo": "skip"}
    low, high = FRONTIER
    band = {"type": "rect", "xref": "x", "yref": "paper", "x0": low, "x1": high, "y0": 0, "y1": 1}
    return Figure(
        title="Chance of a draw",
        data=[dots, weights, even, filtered],
        layout=layout(
            height=340,
            xaxis=axis("pass rate p at the draw", range=[-0.02, 1.02]),
            yaxis=axis("times uniform; loss weight", rangemode="tozero"),
            shapes=[{**band, "fillcolor": "$band", "line": {"width": 0}, "layer": "below"}],
        ),
        columns=("problem", "p", "times uniform", "loss weight"),
        rows=[[item.ordinal, item.pass_rate, item.times_uniform, item.loss_weight] for item in found.rows],
        about="Each problem of the batch, against what a uniform draw and a filter of 0.2 < p < 0.8 would give it.",
    )


LIVE = ("batches", "open_batches")


@page(router, "/batches/{batch_id}", "batch.html", rows=Item, figures=figures, live=LIVE)
async def batch(request: Request, batch_id: str) -> Explanation:
    """One draw."""
    service: BatchService = request.app.state.batches
    summary = await service.summary(batch_id)
    explained = await service.explain(batch_id, with_observations=False)
    drawn = await service.get(batch_id, with_problems=True)
    return Explanation(
        choice=await chosen(request, curriculum=summary.curriculum_id),
        batch=summary,
        estimator=explained.estimator,
        kernel=explained.kernel,
        gamma=explained.gamma,
        n_eligible=explained.n_eligible,
        n_hard_filter=explained.n_hard_filter,
        shortfall=drawn["shortfall"],
        rows=[_item(item, text) for item, text in zip(explained.items, drawn["problems"], strict=True)],
    )


def _item(item: ExplainedItem, text: dict[str, Any]) -> Item:
    same = item.model_dump(exclude={"interval", "posterior", "observations"})
    chance = item.draw_probability
    return Item(
        **same,
        prompt=snippet(text["prompt"]),
        tags=text["tags"],
        low=item.interval[0],
        high=item.interval[1],
        belief=item.posterior,
        times_uniform=None if chance is None else chance / item.uniform_probability,
    )


def snippet(prompt: str | list[dict[str, str]]) -> str:
    """The beginning of a prompt in one line, of a chat its last turn."""
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    line = " ".join(text.split())
    return line if len(line) <= SNIPPET else line[: SNIPPET - 1] + "…"
