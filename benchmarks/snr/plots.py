"""A plot of the curves."""

from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from benchmarks.snr.kernels import FLOOR

PLOT = Path(".benchmarks/snr/snr.html")


def plot(rows: list[dict[str, Any]], figures: dict[str, Any], path: Path) -> None:
    """SNR by pass rate with the fitted kernels, as a page that needs no network."""
    pairs = list(dict.fromkeys((row["pool"], row["divergence"]) for row in rows))
    figure = make_subplots(rows=1, cols=len(pairs), subplot_titles=[f"{d}, {p}" for p, d in pairs], shared_yaxes=False)
    grid = np.linspace(0.005, 0.995, 199)
    for column, (pool, divergence) in enumerate(pairs, 1):
        mine = [row for row in rows if (row["pool"], row["divergence"]) == (pool, divergence)]
        p, snr = np.array([row["pass_rate"] for row in mine]), np.array([row["snr"] for row in mine])
        figure.add_trace(go.Scatter(x=p, y=snr, mode="markers", name="measured"), 1, column)
        kernel = figures[f"kernel_{divergence}_{pool}"]
        log_w = kernel["alpha"] * np.log(grid) + kernel["beta"] * np.log1p(-grid)
        at_p = np.interp(p, grid, log_w)
        scale = np.mean(np.log(np.maximum(snr, FLOOR * snr.max())) - at_p)
        name = f"p^{kernel['alpha']} (1−p)^{kernel['beta']}"
        figure.add_trace(go.Scatter(x=grid, y=np.exp(log_w + scale), mode="lines", name=name), 1, column)
    figure.update_xaxes(title_text="pass rate of the student", range=[0, 1])
    figure.update_yaxes(title_text="signal² / noise", type="log")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(path, include_plotlyjs=True)
