"""Figures as Plotly's plain dictionaries, and the same numbers as a table for those who read without scripts.

Colours are names of the style sheet's custom properties, such as `$blue`: the browser puts in what its theme has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
GRID = {"gridcolor": "$grid", "zerolinecolor": "$line", "linecolor": "$line", "automargin": True}


@dataclass(frozen=True, slots=True)
class Figure:
    """A title, Plotly traces and layout, a line on how to read it, and its numbers: column names and rows."""

    title: str
    data: Sequence[Json]
    layout: Json
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    about: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.rows


def layout(*, height: int = 300, **fields: Any) -> Json:
    """A quiet layout; fields named xaxis and yaxis are laid over the grid's."""
    axes = {name: {**GRID, **axis} for name, axis in fields.items() if name[:5] in ("xaxis", "yaxis")}
    return {
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "$text", "size": 12},
        "margin": {"l": 48, "r": 16, "t": 8, "b": 40},
        "hoverlabel": {"bgcolor": "$surface", "bordercolor": "$line", "font": {"color": "$text"}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        **fields,
        **axes,
    }


def axis(title: str, **fields: Any) -> Json:
    """An axis with a title."""
    return {"title": {"text": title, "standoff": 8, "font": {"size": 12, "color": "$muted"}}, **fields}
