"""A plot of the hold-out by tokens trained on."""

from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

# Okabe and Ito's palette; the way of drawing has the colour, reverse KL is dashed
COLOURS = {"uniform": "#56595c", "hard_filter": "#009e73", "akl": "#cc79a7", "paper": "#56b4e9", "default": "#d55e00"}
SHOWN = (*COLOURS, "uniform_reverse", "default_reverse", "default_forward_reverse")
DASHES = {"_forward_reverse": "dot", "_reverse": "dash"}


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Means over seeds, a panel for each experiment, as a page that needs no network."""
    experiments = list(dict.fromkeys(row["experiment"] for row in rows))
    figure = make_subplots(rows=1, cols=max(len(experiments), 1), subplot_titles=experiments)
    for column, experiment in enumerate(experiments, 1):
        mine = {row["arm"]: row for row in rows if row["experiment"] == experiment}
        for arm in filter(mine.__contains__, SHOWN):
            line = {"color": COLOURS[_way(arm)], "dash": DASHES.get(arm.removeprefix(_way(arm)), "solid"), "width": 2}
            curve = mine[arm]["curve"]
            x, y = [point["tokens"] for point in curve], [point["all"] for point in curve]
            trace = go.Scatter(x=x, y=y, mode="lines", name=arm, legendgroup=arm, showlegend=column == 1, line=line)
            figure.add_trace(trace, 1, column)
    figure.update_xaxes(title_text="tokens trained on", nticks=4)
    figure.update_yaxes(title_text="hold-out pass rate", col=1)
    figure.update_layout(template="plotly_white", legend={"orientation": "h", "y": -0.25}, margin={"t": 40})
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(path, include_plotlyjs=True)


def _way(arm: str) -> str:
    """The arm's way of drawing, without its schedule."""
    return max((name for name in COLOURS if arm.startswith(name)), key=len)
