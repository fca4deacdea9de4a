"""The page of `distill compare`: methods side by side, as a table and a drawing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill_platform.evaluate.drawing import Drawing, blank_figure, marker
from distill_platform.evaluate.report import render_page


def render_comparison(document: Mapping[str, Any]) -> str:
    """What `compare.Comparison.to_json` gives, as one HTML document."""
    drawing = draw_methods(document)
    title = f"{document['spec']}: methods compared"
    return render_page("comparison.html.j2", title, [drawing], facts=document)


def draw_methods(document: Mapping[str, Any]) -> Drawing:
    """How much better than the baseline each method's students are: each seed, and the mean with its interval."""
    figure, said = blank_figure(f"{document['metric']}, better than the baseline by", ""), []
    for row in document["methods"]:
        method = row["method"]
        seeds = [outcome["difference"] for outcome in document["outcomes"] if outcome["method"] == method]
        figure.add_scatter(x=seeds, y=[method] * len(seeds), mode="markers", marker=marker("baseline", size=6))
        bar = None
        if row["interval"] is not None:
            low, high = row["interval"]
            ends = {"array": [high - row["difference"]], "arrayminus": [row["difference"] - low]}
            bar = {"symmetric": False, **ends, "thickness": 3, "width": 0, "color": "var(--student)"}
        point = marker("student", size=11)
        figure.add_scatter(x=[row["difference"]], y=[method], mode="markers", error_x=bar, marker=point)
        said.append(f"{method} {row['difference']:+.4f}")
    figure.add_vline(x=0, line={"color": "var(--ink)", "width": 1, "dash": "dot"})
    figure.update_layout(height=130 + 34 * len(said), showlegend=False)
    figure.update_yaxes(autorange="reversed", title=None)
    caption = (
        f"Difference of {document['metric']} to the baseline on the test split, positive if better; small points are "
        f"seeds, large ones their mean with its 95% interval: {', '.join(said)}."
    )
    return Drawing("methods", "Against a student without a teacher", figure, caption)
