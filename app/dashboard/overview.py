"""Is the student learning, where is its frontier, are rollouts being wasted: one page."""

from dataclasses import dataclass
from itertools import pairwise

from fastapi import APIRouter, Request

from app.dashboard.choice import Choice, Chosen
from app.dashboard.figures import Figure, axis, layout
from app.dashboard.twins import page
from app.flow.estimates.estimators import FRONTIER
from app.flow.estimates.service import EstimateService
from paced.wire import Frontier, HoldoutPoint

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page shows; None where nothing is measured."""

    choice: Choice
    frontier: Frontier | None
    holdout: list[HoldoutPoint]


def figures(found: Overview) -> dict[str, Figure]:
    """The page's figures."""
    return {} if found.frontier is None else {"histogram": _histogram(found.frontier)}


def _histogram(frontier: Frontier) -> Figure:
    edges = frontier.edges
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    bars = {"type": "bar", "x": middles, "y": frontier.counts, "marker": {"color": "$blue"}, "name": "problems"}
    low, high = FRONTIER
    band = {"type": "rect", "xref": "x", "yref": "paper", "x0": low, "x1": high, "y0": 0, "y1": 1}
    look = {"fillcolor": "$band", "line": {"width": 0}, "layer": "below"}
    return Figure(
        title="Pass rates",
        data=[bars],
        layout=layout(
            xaxis=axis("pass rate p", range=[0, 1]),
            yaxis=axis("problems", rangemode="tozero"),
            shapes=[{**band, **look}],
            bargap=0.08,
        ),
        columns=("from", "to", "problems"),
        rows=list(zip(edges, edges[1:], frontier.counts, strict=False)),
        about="The shaded band is the frontier: problems that the student solves sometimes.",
    )


@page(router, "/overview", "overview.html", figures=figures, live=("observations", "checkpoints", "problems"))
async def overview(request: Request, choice: Chosen) -> Overview:
    """The page of one measurement."""
    if choice.measurement is None:
        return Overview(choice, None, [])
    estimates: EstimateService = request.app.state.estimates
    return Overview(choice, await estimates.frontier(choice.number), await estimates.holdout(choice.number))
