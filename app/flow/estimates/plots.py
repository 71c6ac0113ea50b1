"""What a replay found, as a readable table and as one page of HTML that needs no network."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from app.flow.estimates.policies import MIN_PROBLEMS, Average
from app.flow.estimates.replay import N_BINS, Score, Scores

# Okabe-Ito, each with a symbol of its own
LOOKS = {
    "plug_in_first": ("#cc79a7", "triangle-up"),
    "plug_in_newest": ("#009e73", "square"),
    "discounted_beta": ("#d55e00", "diamond"),
    "discounted_beta_unfitted": ("#e69f00", "diamond-open"),
    "logit_filter": ("#56b4e9", "star"),
    "drift_filter": ("#0072b2", "circle"),
    "any": ("#767676", "x"),
}
MEASURES = ("reach", "waste", "recall")
GRID = {"gridcolor": "rgba(128,128,128,0.25)", "zerolinecolor": "rgba(128,128,128,0.5)"}
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """A title, column names and rows of text."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(found: Scores) -> list[Table]:
    """Estimators, best first; then policies, by recall."""
    n_groups = found.scores[0].n_groups
    return [
        Table(
            f"Forecasts of {n_groups} groups of problems measured before, {found.n_reports} reports; lower is better",
            ("estimator", "log loss a group", "behind the best", "squared error of p"),
            [
                (
                    score.estimator,
                    f"{score.log_loss:.4f} ± {score.log_loss_se:.4f}",
                    f"{score.behind_best:.4f} ± {score.behind_best_se:.4f}" if score.behind_best else "-",
                    f"{score.squared_error:.4f}",
                )
                for score in _best_first(found)
            ],
        ),
        Table(
            f"Draws by what was known before each checkpoint's answers, mean of {found.n_waves} checkpoints"
            if found.policies
            else f"Draws are not scored: no checkpoint has answers to {MIN_PROBLEMS} problems measured before it",
            ("estimator", "policy", *MEASURES),
            [
                (score.estimator, score.policy, *(_shown(getattr(score, measure)) for measure in MEASURES))
                for score in sorted(found.policies, key=lambda score: -(score.recall.mean or 0.0))
            ],
        ),
    ]


def text(found: Scores) -> str:
    """The tables for a terminal."""
    return "\n\n".join(_aligned(table) for table in tables(found))


def page(found: Scores) -> str:
    """The tables and plots as one HTML page, plotly.js within it."""
    title = html.escape(f"Replay of {found.measurement_id}")
    library = files("plotly").joinpath("package_data/plotly.min.js").read_text(encoding="utf-8")
    plots = {"loss": _losses(found), "calibration": _calibrations(found), "policies": _policies(found)}
    data = json.dumps(plots).replace("</", "<\\/")
    first, second = (_as_html(table) for table in tables(found))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{title}</h1>
{first}
<div id="loss"></div>
<div id="calibration"></div>
{second}
<p>{ABOUT}</p>
<div id="policies"></div>
<script>{library}</script>
<script>const plots = {data};{SCRIPT}</script>
</body>
</html>
"""


STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
caption { text-align: left; font-weight: 600; padding: 0.5rem 0; }
th, td { text-align: left; padding: 0.2rem 1.5rem 0.2rem 0; border-bottom: 1px solid rgba(128, 128, 128, 0.4); }
"""
ABOUT = """reach: share of the true weight of the best fifth that can be drawn at all. waste: share of the law's mass on
problems that then passed always or never. recall: share of the best fifth's true weight in a draw of a tenth. The truth
is one noisy group a problem: compare policies, not with 1."""
SCRIPT = """
for (const [id, plot] of Object.entries(plots)) {
  plot.layout.font = {color: getComputedStyle(document.body).color};
  Plotly.newPlot(id, plot.data, plot.layout, {responsive: true, displaylogo: false});
}
"""


def _best_first(found: Scores) -> list[Score]:
    return sorted(found.scores, key=lambda score: score.log_loss)


def _shown(average: Average) -> str:
    if average.mean is None:
        return "-"
    return f"{average.mean:.3f}" if average.se is None else f"{average.mean:.3f} ± {average.se:.3f}"


def _aligned(table: Table) -> str:
    lines = [table.columns, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join([table.title, *(line.rstrip() for line in padded)])


def _as_html(table: Table) -> str:
    def line(tag: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    rows = "\n".join(line("td", row) for row in table.rows)
    return f"<table><caption>{html.escape(table.title)}</caption>\n{line('th', table.columns)}\n{rows}\n</table>"


def _trace(name: str, **fields: Any) -> Json:
    colour, symbol = LOOKS[name]
    made = {"name": name, "legendgroup": name, "mode": "lines+markers", "line": {"color": colour}, **fields}
    return {**made, "marker": {"color": colour, "symbol": symbol, "size": 9, **fields.get("marker", {})}}


def _layout(title: str, **fields: Any) -> Json:
    axes = {name: {**GRID, **axis} for name, axis in fields.items() if name[:5] in ("xaxis", "yaxis")}
    clear = "rgba(0,0,0,0)"
    return {"title": {"text": title}, "paper_bgcolor": clear, "plot_bgcolor": clear, "height": 480, **fields, **axes}


def _losses(found: Scores) -> Json:
    data = [
        _trace(
            score.estimator,
            x=[loss.checkpoint_index for loss in score.by_checkpoint],
            y=[loss.log_loss for loss in score.by_checkpoint],
            error_y={"array": [loss.se or 0.0 for loss in score.by_checkpoint]},
            text=[f"{loss.n_groups} groups" for loss in score.by_checkpoint],
        )
        for score in _best_first(found)
    ]
    axes: Json = {"xaxis": {"title": {"text": "checkpoint"}, "tickformat": "d"}}
    axes["yaxis"] = {"title": {"text": "nats a group, ± standard error"}}
    return {"data": data, "layout": _layout("Log loss by checkpoint", **axes)}


def _calibrations(found: Scores) -> Json:
    grey = {"color": "#767676", "dash": "dot"}
    ideal = {"x": [0, 1], "y": [0, 1], "mode": "lines", "line": grey, "showlegend": False, "hoverinfo": "skip"}
    data: list[Json] = [ideal]
    for score in _best_first(found):
        said, was, counts = zip(*score.calibration, strict=True)
        data.append(_trace(score.estimator, x=said, y=was, text=[f"{n} groups" for n in counts]))
        tenths = [(min(int(N_BINS * p), N_BINS - 1) + 0.5) / N_BINS for p in said]
        bars = {"type": "bar", "x": tenths, "y": counts, "yaxis": "y2", "showlegend": False}
        look = {"name": score.estimator, "marker": {"color": LOOKS[score.estimator][0]}}
        data.append({**bars, **look, "legendgroup": score.estimator})
    axes: Json = {"xaxis": {"title": {"text": "forecast pass rate"}, "range": [0, 1], "anchor": "y2"}}
    axes["yaxis"] = {"title": {"text": "observed"}, "range": [0, 1], "domain": [0.32, 1]}
    axes["yaxis2"] = {"title": {"text": "groups"}, "domain": [0, 0.22]}
    return {"data": data, "layout": _layout("Calibration, and groups in each tenth", barmode="group", **axes)}


def _policies(found: Scores) -> Json:
    names = list(dict.fromkeys(score.estimator for score in found.policies))
    data = [_dots(found, name, place) for place in range(len(MEASURES)) for name in names]
    axes: Json = {f"xaxis{i + 1 if i else ''}": _measure_axis(measure, i) for i, measure in enumerate(MEASURES)}
    axes["yaxis"] = {"automargin": True, "type": "category"}
    layout = _layout("Policies, mean of the checkpoints ± standard error", scattermode="group", **axes)
    return {"data": data, "layout": {**layout, "height": 560, "legend": {"orientation": "h", "y": -0.2}}}


def _measure_axis(measure: str, place: int) -> Json:
    return {"title": {"text": measure}, "rangemode": "tozero", "domain": [place * 0.35, place * 0.35 + 0.3]}


def _dots(found: Scores, name: str, place: int) -> Json:
    theirs = [score for score in found.policies if score.estimator == name]
    averages: list[Average] = [getattr(score, MEASURES[place]) for score in theirs]
    return _trace(
        name,
        x=[average.mean for average in averages],
        y=[score.policy for score in theirs],
        error_x={"array": [average.se or 0.0 for average in averages]},
        mode="markers",
        orientation="h",
        offsetgroup=name,
        xaxis=f"x{place + 1 if place else ''}",
        showlegend=place == 0,
    )
