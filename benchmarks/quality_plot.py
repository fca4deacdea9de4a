"""Quality against bytes as one HTML page: a panel for each problem and temperature, the knee marked."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
from plotly.colors import qualitative
from plotly.subplots import make_subplots


def draw(document: Mapping[str, Any]) -> str:
    """Of the document of cache_quality.py. Bars are two standard deviations over students either way."""
    panels = [(name, at) for name in document["units"] for at in _temperatures(document[name])]
    titles = [f"{name}, T = {at:g}" for name, at in panels]
    figure = make_subplots(rows=len(panels), cols=1, subplot_titles=titles, vertical_spacing=0.25 / len(panels))
    codecs = list(dict.fromkeys(row["codec"] for name, _ in panels for row in document[name]))
    colours = dict(zip(codecs, qualitative.Dark24, strict=False))
    for number, (name, at) in enumerate(panels, start=1):
        for codec in codecs:
            trace = _trace(document, name, at, codec)
            trace.update(marker_color=colours[codec], legendgroup=codec, showlegend=number == 1)
            figure.add_trace(trace, row=number, col=1)
        knee = document["knees"][name][f"T = {at:g}"]
        label = f"knee: {knee['codec']}, {knee['bytes']:,} bytes"
        figure.add_vline(x=knee["bytes"], line_dash="dash", annotation_text=label, row=number, col=1)
        figure.update_xaxes(type="log", title=f"bytes per {document['units'][name]}", row=number, col=1)
        figure.update_yaxes(title="KL(teacher || student), nats", row=number, col=1)
    figure.update_layout(height=360 * len(panels), template="plotly_white", title="Student quality against bytes")
    return str(figure.to_html(include_plotlyjs=True))


def _temperatures(rows: list[dict[str, Any]]) -> list[float]:
    return sorted({row["temperature"] for row in rows})


def _trace(document: Mapping[str, Any], name: str, at: float, codec: str) -> go.Scatter:
    rows = sorted(
        (row for row in document[name] if row["temperature"] == at and row["codec"] == codec),
        key=lambda row: row["bytes"],
    )
    spread = [2 * statistics.stdev(_kls(row)) if len(row["seeds"]) > 1 else 0.0 for row in rows]
    return go.Scatter(
        x=[row["bytes"] for row in rows],
        y=[row["kl"] for row in rows],
        error_y={"type": "data", "array": spread},
        mode="lines+markers",
        name=codec,
        text=[f"{codec}, keep {row['keep']}, agreement {row['agreement']:.3f}" for row in rows],
    )


def _kls(row: Mapping[str, Any]) -> list[float]:
    return [one["kl"] for one in row["seeds"]]
