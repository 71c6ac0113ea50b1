"""Figures of where a student's frontier is, and whether rollouts and draws go there."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from app.dashboard.figures import Figure, Json, axis, layout
from app.flow.batches.summaries import BatchSummary
from app.flow.curricula.weighting import peak
from app.flow.estimates.estimators import FRONTIER, HARD_FILTER, weight
from app.flow.estimates.history import Spread
from app.flow.estimates.service import N_BINS
from paced.wholes import measured_whole
from paced.wire import CurriculumPreview, Frontier, HoldoutPoint, Kernel

EDGES = np.linspace(0.0, 1.0, N_BINS + 1)
MIDDLES = ((EDGES[1:] + EDGES[:-1]) / 2).tolist()
PERCENT = {"tickformat": ".0%", "rangemode": "tozero"}
SE_95 = 1.96
SMALL = {"font": {"size": 12}}


def histogram(frontier: Frontier, law: CurriculumPreview | None, kernel: Kernel | None) -> Figure:
    """Problems by pass rate, and with a curriculum the chance of a draw and the kernel over them."""
    if law is None or kernel is None:
        n = max(frontier.n_measured, 1)
        shares, data = [count / n for count in frontier.counts], []
        about = "Share of the training problems, by the newest group of answers to each. The band is the frontier."
    else:
        shares = law.problem_shares
        data = [_drawn(law), _kernel(kernel)]
        about = "Training problems by estimated pass rate, what a draw takes of them, and the weight w(p) of the "
        about += "curriculum. The shaded band is the frontier, 0.1 < p < 0.9."
    look = {"marker": {"color": "$blue"}, "hovertemplate": "p %{x:.3f}<br>%{y:.1%} of problems<extra></extra>"}
    bars: Json = {"type": "bar", "x": MIDDLES, "y": shares, "name": "problems", **look}
    columns = ["p from", "p to", "share of problems"]
    rows: list[list[float]] = [[low, high, share] for (low, high), share in zip(pairwise(EDGES), shares, strict=True)]
    if law is not None:
        columns.append("share of draws")
        rows = [[*row, share] for row, share in zip(rows, law.present.draw_shares, strict=True)]
    return Figure(
        title="Where the problems are",
        data=[bars, *data],
        layout=layout(
            height=320,
            xaxis=axis("pass rate p", range=[0, 1], nticks=6),
            yaxis=axis("share", **PERCENT),
            yaxis2={"overlaying": "y", "side": "right", "range": [0, 1.05], "showgrid": False, "visible": False},
            shapes=[_band("x", FRONTIER)],
            bargap=0.06,
        ),
        columns=columns,
        rows=rows if frontier.n_measured else [],
        about=about,
    )


def _band(side: str, ends: tuple[float, float]) -> Json:
    """The frontier, shaded behind everything else."""
    other = "y" if side == "x" else "x"
    place = {f"{side}ref": side, f"{other}ref": "paper", f"{side}0": ends[0], f"{side}1": ends[1]}
    look = {"type": "rect", "fillcolor": "$band", "line": {"width": 0}, "layer": "below"}
    return {**place, f"{other}0": 0, f"{other}1": 1, **look}


def _drawn(law: CurriculumPreview) -> Json:
    look = {"line": {"color": "$orange", "width": 2, "shape": "hvh"}, "marker": {"symbol": "diamond", "size": 7}}
    shown = {"hovertemplate": "p %{x:.3f}<br>%{y:.1%} of draws<extra></extra>"}
    return {"x": MIDDLES, "y": law.present.draw_shares, "name": "draws", "mode": "lines+markers", **look, **shown}


def _kernel(kernel: Kernel) -> Json:
    p = np.linspace(0.0, 1.0, 101)
    w = weight(p, kernel) / peak(kernel)
    look = {"line": {"color": "$purple", "width": 2, "dash": "dot"}, "yaxis": "y2", "mode": "lines"}
    name = f"w(p) = {_power('p', kernel.alpha)}{_power('(1−p)', kernel.beta)}, scaled"
    return {"x": p.tolist(), "y": w.round(4).tolist(), "name": name, "hoverinfo": "skip", **look}


def _power(base: str, exponent: float) -> str:
    return base if exponent == 1.0 else f"{base}<sup>{exponent:g}</sup>"


def heat(spreads: Sequence[Spread]) -> Figure:
    """Groups of answers by pass rate at each checkpoint: the frontier moving."""
    n_steps = len(spreads[0].counts) - 1 if spreads else 1
    steps = [i / n_steps for i in range(n_steps + 1)]
    shares = [[count / max(spread.n_groups, 1) for count in spread.counts] for spread in spreads]
    cells: Json = {
        "type": "heatmap",
        "x": [spread.checkpoint_index for spread in spreads],
        "y": steps,
        "z": [[column[i] for column in shares] for i in range(n_steps + 1)],
        "colorscale": [[0, "$heat-0"], [1, "$heat-1"]],
        "colorbar": {
            "tickformat": ".0%",
            "thickness": 10,
            "outlinewidth": 0,
            "title": {"text": "groups", "font": {"size": 12}},
        },
        "hovertemplate": "checkpoint %{x}<br>p %{y:.3f}<br>%{z:.1%} of groups<extra></extra>",
        "xgap": 1,
        "ygap": 1,
    }
    lines = [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": end, "y1": end, "line": FRONTIER_LINE}
        for end in FRONTIER
    ]
    return Figure(
        title="The frontier over checkpoints",
        data=[cells],
        layout=layout(
            height=320,
            xaxis=axis("checkpoint", tickformat="d", dtick=_step(len(spreads)), showgrid=False),
            yaxis=axis("pass rate of a group", dtick=0.2, showgrid=False),
            shapes=lines,
        ),
        columns=("checkpoint", *(f"p = {step:.3g}" for step in steps)),
        rows=[[spread.checkpoint_index, *spread.counts] for spread in spreads],
        about="Each column is what workers measured at a checkpoint; between the lines lies the frontier.",
    )


FRONTIER_LINE = {"color": "$green", "width": 1.5, "dash": "dash"}


def _step(n: int) -> int:
    """Between ticks, so that about ten are left."""
    return max(1, round(n / 10))


def holdout(spreads: Sequence[Spread]) -> Figure:
    """Hold-out pass rate at each checkpoint with its 95 % interval."""
    every = [spread.holdout for spread in spreads if spread.holdout is not None]
    points = measured_whole(every)
    parts = [point for point in every if point not in points]
    x = [point.checkpoint_index for point in points]
    half = [SE_95 * (point.se or 0.0) for point in points]
    y = [point.pass_rate for point in points]
    low = [max(rate - h, 0.0) for rate, h in zip(y, half, strict=True)]
    high = [min(rate + h, 1.0) for rate, h in zip(y, half, strict=True)]
    hidden = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    shown: Json = {"x": x, "y": y, "mode": "lines+markers", "name": "hold-out"}
    shown |= {"line": {"color": "$blue", "width": 2}, "marker": {"size": 8}, "showlegend": False}
    shown |= {"customdata": half, "hovertemplate": "checkpoint %{x}<br>%{y:.1%} ± %{customdata:.1%}<extra></extra>"}
    return Figure(
        title="Hold-out pass rate",
        data=[
            {"x": x, "y": low, **hidden},
            {"x": x, "y": high, "fill": "tonexty", "fillcolor": "$blue-soft", **hidden},
            shown,
            in_part([point.checkpoint_index for point in parts], parts),
        ],
        layout=layout(
            xaxis=axis("checkpoint", tickformat="d", dtick=_step(len(x))),
            yaxis=axis("pass rate", **PERCENT),
        ),
        columns=("checkpoint", "problems", "answers", "pass rate", "standard error"),
        rows=[[p.checkpoint_index, p.n_problems, p.n_rollouts, p.pass_rate, p.se] for p in every],
        about="Problems that are never trained on: whether the student learns. The band is the 95 % interval; hollow "
        "points are of a part of the problems.",
    )


def in_part(x: Sequence[float], points: Sequence[HoldoutPoint]) -> Json:
    """Hollow markers where a hold-out was not measured whole."""
    return {
        "x": list(x),
        "y": [point.pass_rate for point in points],
        "customdata": [point.n_problems for point in points],
        "mode": "markers",
        "name": "in part",
        "showlegend": False,
        "marker": {"size": 8, "symbol": "circle-open", "color": "$grey"},
        "hovertemplate": "%{x}: %{y:.1%} of %{customdata} problems<extra></extra>",
    }


def rollouts(spreads: Sequence[Spread]) -> Figure:
    """Share of groups on the frontier, beside that of those which were chosen uniformly."""
    spent = [spread.n_frontier / spread.n_groups if spread.n_groups else None for spread in spreads]
    uniform = [spread.n_uniform_frontier / spread.n_uniform if spread.n_uniform else None for spread in spreads]
    x = [spread.checkpoint_index for spread in spreads]
    return Figure(
        title="Rollouts on the frontier",
        data=[_line(x, spent, "all groups", "$blue", "circle"), _line(x, uniform, "uniform ones", "$grey", "x")],
        layout=layout(
            xaxis=axis("checkpoint", tickformat="d", dtick=_step(len(x))),
            yaxis=axis("share with 0.1 < p < 0.9", **PERCENT),
        ),
        columns=("checkpoint", "groups", "on the frontier", "uniform groups", "of them on the frontier"),
        rows=[[s.checkpoint_index, s.n_groups, s.n_frontier, s.n_uniform, s.n_uniform_frontier] for s in spreads],
        about="Groups of answers with 0.1 < p < 0.9 teach most; the others are the price of looking.",
    )


def _line(x: Sequence[int], y: Sequence[float | None], name: str, colour: str, symbol: str) -> Json:
    look = {"line": {"color": colour, "width": 2}, "marker": {"symbol": symbol, "size": 7}, "connectgaps": False}
    shown = {"hovertemplate": "%{x}<br>%{y:.1%}<extra>" + name + "</extra>"}
    mode = "lines+markers" if len(x) <= 60 else "lines"
    return {"x": list(x), "y": list(y), "name": name, "mode": mode, **look, **shown}


def draws(batches: Sequence[BatchSummary]) -> Figure:
    """Share of each batch inside the hard filter's band, beside that of a uniform draw at the same moment."""
    ordered = list(reversed(batches))
    x = [batch.seq for batch in ordered]
    low, high = HARD_FILTER
    return Figure(
        title="Draws in the middle",
        data=[
            _line(x, [batch.inside_share for batch in ordered], "drawn", "$orange", "diamond"),
            _line(x, [batch.uniform_inside_share for batch in ordered], "a uniform draw", "$grey", "x"),
        ],
        layout=layout(
            xaxis=axis("draw", tickformat="d"),
            yaxis=axis(f"share with {low:g} < p < {high:g}", **PERCENT),
        ),
        columns=("draw", "problems", "share drawn", "share of a uniform draw"),
        rows=[[b.seq, b.size, b.inside_share, b.uniform_inside_share] for b in ordered],
        about=f"The last {len(ordered)} batches, as known when each was drawn.",
    )


def tags(law: CurriculumPreview) -> Figure:
    """Which topics the draws go to."""
    found = [tag for tag in law.present.tags if tag.share > 0.0]
    names = [tag.tag or "(no tag)" for tag in found]
    bars: Json = {
        "type": "bar",
        "orientation": "h",
        "x": [tag.share for tag in found],
        "y": names,
        "marker": {"color": "$orange"},
        "customdata": [tag.n_problems for tag in found],
        "hovertemplate": "%{y}<br>%{x:.1%} of draws<br>%{customdata} problems<extra></extra>",
        "showlegend": False,
    }
    return Figure(
        title="Topics at the frontier",
        data=[bars],
        layout=layout(
            height=max(200, 60 + 24 * len(found)),
            xaxis=axis("share of draws", **PERCENT),
            yaxis={"type": "category", "autorange": "reversed", "showgrid": False, "ticklabelstandoff": 6},
            bargap=0.25,
        ),
        columns=("first tag", "share of draws", "problems with a chance"),
        rows=[[name, tag.share, tag.n_problems] for name, tag in zip(names, found, strict=True)],
        about="Weight by the first tag of the problems, on the estimates of now.",
    )
