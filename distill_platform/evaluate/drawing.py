"""What the report's drawings are made of.

Colours are names of CSS variables, such as var(--student): the page resolves them, so that one figure fits light, dark
and print. Each drawing's caption is also its text alternative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go


@dataclass(frozen=True)
class Drawing:
    """A figure, the name of its element in the page, and what it shows in words."""

    name: str
    title: str
    figure: go.Figure
    caption: str


def blank_figure(x_title: str, y_title: str) -> go.Figure:
    """A figure with axes and nothing on them."""
    clear = "rgba(0,0,0,0)"
    axis = {"gridcolor": "var(--line)", "linecolor": "var(--line)", "zeroline": False, "automargin": True, "nticks": 6}
    return go.Figure(
        layout={
            "template": "none",
            "height": 330,
            "margin": {"l": 12, "r": 16, "t": 16, "b": 12},
            "paper_bgcolor": clear,
            "plot_bgcolor": clear,
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": "var(--ink)"},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": clear},
            "hoverlabel": {"bgcolor": "var(--card)", "font": {"color": "var(--ink)"}},
            "xaxis": {**axis, "title": {"text": x_title}},
            "yaxis": {**axis, "title": {"text": y_title}},
        }
    )


def marker(colour: str, **more: Any) -> dict[str, Any]:
    """Points in a model's colour."""
    return {"color": f"var(--{colour})", **more}


def line(colour: str) -> dict[str, Any]:
    """A line in a model's colour."""
    return {"mode": "lines", "line": {"color": f"var(--{colour})", "width": 2}}
