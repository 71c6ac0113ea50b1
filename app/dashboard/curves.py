"""Figures of series over a run: a mean line in the band of its extremes, stages marked."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from app.dashboard.figures import Figure, Json, axis, layout
from app.flow.training.comparing import HOLDOUT
from app.flow.training.series import Band
from paced.wire import Axis, PooledSeries, RunComparison, RunSeries, Stage

Look = tuple[str, str, str]  # colour, soft colour, dash
AXES = {Axis.STEP: "step", Axis.TOKENS: "tokens trained on", Axis.TIME: "seconds of steps"}
LOOKS: tuple[Look, ...] = (  # told apart without colour too
    ("$blue", "$blue-soft", "solid"),
    ("$vermilion", "$orange-soft", "dash"),
    ("$green", "$band", "dot"),
    ("$purple", "$grid", "dashdot"),
    ("$sky", "$blue-soft", "longdash"),
    ("$orange", "$orange-soft", "longdashdot"),
    ("$grey", "$grid", "solid"),
)
TITLES = {HOLDOUT: "hold-out pass rate"}
STAGES = {Stage.FORWARD_KL: "forward KL", Stage.REVERSE_KL: "reverse KL"}


def band(x: Sequence[float], low: Sequence[float], high: Sequence[float], fill: str, group: str) -> list[Json]:
    """An area between two lines, in one legend group."""
    edge = {"type": "scatter", "mode": "lines", "x": x, "line": {"width": 0}, "legendgroup": group}
    quiet = {"showlegend": False, "hoverinfo": "skip"}
    return [{**edge, "y": low, **quiet}, {**edge, "y": high, **quiet, "fill": "tonexty", "fillcolor": fill}]


def line(x: Sequence[float], y: Sequence[float], name: str, colour: str, dash: str = "solid") -> Json:
    """A line with its legend."""
    look = {"color": colour, "dash": dash, "width": 2}
    shown = {"name": name, "legendgroup": name, "hovertemplate": f"{name}: %{{y:.4g}}<extra></extra>"}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": look, **shown}


def marks(switches: Sequence[float]) -> list[Json]:
    """A dashed line where a stage begins after another."""
    whole = {"type": "line", "xref": "x", "yref": "paper", "y0": 0, "y1": 1}
    look = {"color": "$muted", "width": 1.5, "dash": "dash"}
    return [{**whole, "x0": x, "x1": x, "line": look} for x in switches]


def stage_names(stages: Sequence[Stage], switches: Sequence[float], last: float) -> list[Json]:
    """The name of each stage, over its part of the axis."""
    bounds = list(pairwise([0.0, *switches, last]))
    place = {"yref": "paper", "y": 1, "yanchor": "top", "showarrow": False, "font": {"color": "$muted", "size": 11}}
    return [
        {**place, "x": (low + high) / 2, "text": STAGES[stage]}
        for stage, (low, high) in zip(stages, bounds, strict=False)
    ]


def run_figure(
    title: str, unit: str, made: Band, shapes: Sequence[Json], names: Sequence[Json], about: str = ""
) -> Figure:
    """One metric of one run by step."""
    parts = made.lists()
    x, low, mean, high = (parts[name] for name in ("x", "low", "mean", "high"))
    is_wide = low != high
    spread = band(x, low, high, "$blue-soft", title) if is_wide else []
    return Figure(
        title=title,
        data=[*spread, {**line(x, mean, title, "$blue"), "showlegend": False}],
        layout=layout(
            xaxis=axis("step", rangemode="tozero"),
            yaxis=axis(unit, rangemode="tozero"),
            shapes=list(shapes),
            annotations=list(names),
            hovermode="x unified",
        ),
        columns=("step", "least", "mean", "largest") if is_wide else ("step", title),
        rows=list(zip(x, low, mean, high, strict=True)) if is_wide else list(zip(x, mean, strict=True)),
        about=about,
    )


def comparison_figure(found: RunComparison) -> Figure:
    """Pooled groups as lines in their interval, their runs thin within; other runs in the band of their extremes."""
    groups = unlike([group.group for group in found.groups])
    pooled = {run_id: name for name, group in zip(groups, found.groups, strict=True) for run_id in group.run_ids}
    labels = dict(zip((run.run_id for run in found.runs), unlike([run.name for run in found.runs]), strict=True))
    names = [*groups, *(labels[run.run_id] for run in found.runs if run.run_id not in pooled)]
    looks = {name: LOOKS[place % len(LOOKS)] for place, name in enumerate(names)}
    traces: list[Json] = []
    for run in found.runs:
        label, group_name = labels[run.run_id], pooled.get(run.run_id)
        if group_name is None:
            traces += _alone(run, label, looks[label])
        else:
            traces += _thin(run, label, group_name, looks[group_name])
    for name, group in zip(groups, found.groups, strict=True):
        traces += _pooled(group, name, looks[name])
    return Figure(
        title=TITLES.get(found.metric, found.metric.replace("_", " ")),
        data=traces,
        layout=layout(
            height=420,
            xaxis=axis(AXES[found.by], rangemode="tozero"),
            yaxis=axis(TITLES.get(found.metric, found.metric)),
            shapes=marks(sorted({x for run in found.runs for x in run.switches})),
            hovermode="x unified",
        ),
        columns=("run", AXES[found.by], "least", "mean", "largest"),
        rows=[
            (labels[run.run_id], *values)
            for run in found.runs
            for values in zip(run.x, run.low, run.mean, run.high, strict=True)
        ],
        about="Runs that differ in seeds are pooled: their mean in its 95 % interval. A run alone is drawn in the band "
        "of its extremes. Dashed lines mark where a stage begins.",
    )


def unlike(names: Sequence[str]) -> list[str]:
    """The names, numbered where one stands for several."""
    counts, seen = Counter(names), Counter[str]()
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if counts[name] == 1 else f"{name} ({seen[name]})")
    return found


def _thin(run: RunSeries, label: str, group: str, look: Look) -> list[Json]:
    thin = {"color": look[0], "width": 1, "dash": look[2]}
    quiet = {"opacity": 0.45, "legendgroup": group, "showlegend": False}
    return [{**line(run.x, run.mean, label, look[0]), "line": thin, **quiet}]


def _alone(run: RunSeries, label: str, look: Look) -> list[Json]:
    colour, soft, dash = look
    return [*band(run.x, run.low, run.high, soft, label), line(run.x, run.mean, label, colour, dash)]


def _pooled(group: PooledSeries, name: str, look: Look) -> list[Json]:
    colour, soft, dash = look
    thick = {"line": {"color": colour, "width": 3, "dash": dash}, "legendgroup": name}
    mean = line(group.x, group.mean, f"{name}, mean of {len(group.run_ids)}", colour)
    return [*band(group.x, group.low, group.high, soft, name), {**mean, **thick}]
