"""Figures of draw distributions: what is drawn now, what a change would draw, and where the problems lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from app.dashboard.figures import Figure, Json, axis, layout
from app.flow.estimates.estimators import FRONTIER
from paced.wire import CurriculumPreview, PreviewSide


@dataclass(frozen=True, slots=True)
class Bin:
    """Shares of one bin of the pass rate: of the problems, and of draws and loss by the present rule and as changed."""

    low: float
    high: float
    problems: float
    draw_now: float
    draw_changed: float
    loss_now: float
    loss_changed: float


def bins_of(preview: CurriculumPreview) -> list[Bin]:
    """The preview's histograms, a row a bin."""
    now, then = preview.present, preview.changed
    shares = (preview.problem_shares, now.draw_shares, then.draw_shares, now.loss_shares, then.loss_shares)
    return [Bin(low, high, *each) for (low, high), *each in zip(pairwise(preview.edges), *shares, strict=True)]


def figures_of(preview: CurriculumPreview, *, is_changed: bool) -> dict[str, Figure]:
    """The draw by pass rate and by tag, and the loss where it is another distribution."""
    now, then = preview.present, preview.changed
    found = {
        "draws": _histogram(
            "What is drawn",
            "Share of the draw by pass rate, and where the measured problems lie. The shaded band is the frontier.",
            preview,
            (now.draw_shares, then.draw_shares if is_changed else None),
        ),
        "loss": _histogram(
            "What the loss weighs",
            "The same after loss weights: what the gradient is made of.",
            preview,
            (now.loss_shares, then.loss_shares if is_changed else None),
        ),
    }
    if len(now.tags) > 1 or len(then.tags) > 1:
        found["tags"] = _tags(now, then if is_changed else None)
    return found


def _histogram(
    title: str, about: str, preview: CurriculumPreview, shares: tuple[list[float], list[float] | None]
) -> Figure:
    now, then = shares
    edges = preview.edges
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    low, high = FRONTIER
    band = {"type": "rect", "xref": "x", "yref": "paper", "x0": low, "x1": high, "y0": 0, "y1": 1}
    look = {"fillcolor": "$band", "line": {"width": 0}, "layer": "below"}
    steps = {"type": "scatter", "mode": "lines", "x": middles, "hovertemplate": "p %{x:.2f}: %{y:.1%}"}
    problems = {**steps, "y": preview.problem_shares, "name": "measured problems"}
    traces: list[Json] = [
        {**problems, "line": {"shape": "hvh", "color": "$grey", "dash": "dot", "width": 2}},
        _bars(middles, now, "now", "$blue-soft" if then else "$blue", "$blue"),
    ]
    if then is not None:
        changed = {**steps, "y": then, "name": "after the change"}
        traces.append({**changed, "line": {"shape": "hvh", "color": "$vermilion", "width": 2.5}})
    columns = ["from", "to", "measured problems", "now", *(["after the change"] if then else [])]
    parts = [edges, edges[1:], preview.problem_shares, now, *([then] if then else [])]
    return Figure(
        title=title,
        data=traces,
        layout=layout(
            xaxis=axis("pass rate p", range=[0, 1]),
            yaxis=axis("share", rangemode="tozero", tickformat=".0%"),
            shapes=[{**band, **look}],
            bargap=0.0,
            hovermode="x",
        ),
        columns=columns,
        rows=[[f"{value:.2f}" for value in row[:2]] + [f"{value:.1%}" for value in row[2:]] for row in _rows(parts)],
        about=about,
    )


def _rows(parts: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    return list(zip(*(part[: len(parts[1])] for part in parts), strict=True))


def _bars(x: Sequence[float], y: Sequence[float], name: str, fill: str, line: str) -> Json:
    marker = {"color": fill, "line": {"color": line, "width": 1}}
    return {"type": "bar", "x": x, "y": y, "name": name, "marker": marker, "hovertemplate": "p %{x:.2f}: %{y:.1%}"}


def _tags(now: PreviewSide, then: PreviewSide | None) -> Figure:
    before = {tag.tag: tag.share for tag in now.tags}
    after = {} if then is None else {tag.tag: tag.share for tag in then.tags}
    names = sorted({**before, **after}, key=lambda tag: max(before.get(tag, 0.0), after.get(tag, 0.0)))
    labels = [name or "no tag" for name in names]

    def bars(shares: dict[str, float], name: str, fill: str) -> Json:
        values = [shares.get(tag, 0.0) for tag in names]
        look = {"type": "bar", "orientation": "h", "marker": {"color": fill}, "hovertemplate": "%{y}: %{x:.1%}"}
        return {**look, "x": values, "y": labels, "name": name}

    traces = [bars(before, "now", "$blue")]
    if then is not None:
        traces.append(bars(after, "after the change", "$vermilion"))
    shown = [[label, f"{before.get(tag, 0.0):.1%}"] for tag, label in zip(names, labels, strict=True)]
    if then is not None:
        shown = [[*row, f"{after.get(tag, 0.0):.1%}"] for row, tag in zip(shown, names, strict=True)]
    return Figure(
        title="By tag",
        data=traces,
        layout=layout(
            height=max(220, 60 + 26 * len(names)),
            xaxis=axis("share of the draw", rangemode="tozero", tickformat=".0%"),
            yaxis={"type": "category"},
            barmode="group",
        ),
        columns=["tag", "now", *(["after the change"] if then else [])],
        rows=shown[::-1],
        about="Each problem counts under its first tag; the 20 largest.",
    )
