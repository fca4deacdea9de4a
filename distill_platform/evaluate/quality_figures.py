"""Drawings of how good models are on the test split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill_platform.evaluate.drawing import Drawing, blank_figure, line, marker
from distill_platform.evaluate.evaluation import Evaluation
from distill_platform.evaluate.measures import TOKENS
from distill_platform.evaluate.metrics import confusion_matrix, reliability_curve

MAX_COUNTED_CLASSES = 20
"""More classes than this leave no room for counts in the cells or for names of all rows."""
MAX_POSITIONS = 64
MAX_NAME = 24
"""Characters of a subgroup's name that an axis has room for."""


def draw_quality(evaluation: Evaluation) -> list[Drawing]:
    """What shows how good the models of this evaluation are: it depends on what was measured."""
    parts = (draw_loss_by_position,) if evaluation.measures is TOKENS else (draw_calibration, draw_confusion)
    return [draw_intervals(evaluation), *(draw(evaluation) for draw in parts), *draw_subgroups(evaluation)]


def draw_intervals(evaluation: Evaluation) -> Drawing:
    """The headline, accuracy or perplexity, of each model with its two-sided 95% interval."""
    headline, unit = evaluation.measures.headline, evaluation.measures.unit
    figure, said = blank_figure(f"{headline} on the test split", ""), []
    for name in evaluation.models:
        found = evaluation.summary[name][headline]
        bar = _interval_bar([found])
        figure.add_scatter(
            x=[found["value"]], y=[name], mode="markers", error_x=bar, marker=marker(name, size=11), name=name
        )
        said.append(f"{name} {found['value']:.4f} ({found['lower']:.4f} to {found['upper']:.4f})")
    figure.update_layout(height=130 + 34 * len(said), showlegend=False)
    figure.update_yaxes(autorange="reversed", title=None)
    caption = f"{headline.capitalize()} and its 95% interval on {len(evaluation.ids):,} test {unit}: {', '.join(said)}."
    return Drawing("intervals", f"{headline.capitalize()}, and how sure it is", figure, caption)


def draw_subgroups(evaluation: Evaluation) -> list[Drawing]:
    """The headline of each model on each subgroup, worst subgroup of the student first; nothing without subgroups."""
    headline = evaluation.measures.headline
    groups = [group for group, rows in evaluation.groups.items() if len(rows)]
    if not groups:
        return []
    of_student = {group: evaluation.by_subgroup[group]["student"][headline] for group in groups}
    sign = 1 if evaluation.measures.metrics[headline].higher_is_better else -1
    groups.sort(key=lambda group: sign * of_student[group]["value"])
    figure = blank_figure(f"{headline} on the test split", "")
    for name in evaluation.models:
        found = [evaluation.by_subgroup[group][name][headline] for group in groups]
        values, names = [each["value"] for each in found], [_short(group) for group in groups]
        figure.add_scatter(
            x=values, y=names, mode="markers", error_x=_interval_bar(found), marker=marker(name, size=8), name=name
        )
    figure.update_layout(height=150 + 22 * len(evaluation.models) * len(groups), scattermode="group")
    figure.update_yaxes(autorange="reversed", title=None, type="category", nticks=len(groups))
    worst, best = groups[0], groups[-1]
    caption = (
        f"The student's {headline} is worst on {_on_subgroup(evaluation, worst, of_student[worst])}, and best on "
        f"{_on_subgroup(evaluation, best, of_student[best])}."
    )
    return [Drawing("subgroups", f"{headline.capitalize()} by subgroup", figure, caption)]


def draw_loss_by_position(evaluation: Evaluation) -> Drawing:
    """How the loss of a token falls with what stands before it in its block, per model."""
    figure, said = blank_figure("position in the block", "loss, nats per token"), []
    for name, model in evaluation.models.items():
        places, losses = _binned(model.loss_by_position)
        figure.add_scatter(x=places, y=losses, name=name, **line(name))
        if losses:
            said.append(f"{name} {losses[0]:.3f} to {losses[-1]:.3f}")
    caption = f"Mean loss of a token, from the beginning of a block to its end: {', '.join(said)}."
    return Drawing("loss-by-position", "Loss by position in the block", figure, caption)


def draw_confusion(evaluation: Evaluation) -> Drawing:
    """Which classes the student takes for which."""
    names = list(evaluation.class_names)
    counts = confusion_matrix(evaluation.labels, evaluation.models["student"].answers)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = blank_figure("predicted", "label")
    few = len(names) <= MAX_COUNTED_CLASSES
    figure.add_heatmap(
        z=np.sqrt(shares).tolist(),  # the root makes rare confusions visible beside the diagonal
        customdata=shares.tolist(),
        x=names,
        y=names,
        text=np.where(counts > 0, counts.astype(str), "").tolist() if few else None,
        texttemplate="%{text}" if few else None,
        colorscale=[[0, "var(--card)"], [1, "var(--student-soft)"]],
        showscale=False,
        xgap=1,
        ygap=1,
        hovertemplate="label %{y}, predicted %{x}: %{customdata:.1%}<extra></extra>",
    )
    figure.update_layout(height=400)
    every_class = {"type": "category", "showgrid": False, **({"dtick": 1} if few else {})}
    figure.update_xaxes(**every_class)
    figure.update_yaxes(**every_class, autorange="reversed")
    wrong = counts - np.diag(np.diag(counts))
    worst = [divmod(int(cell), len(names)) for cell in np.argsort(-wrong, axis=None, kind="stable")[:3]]
    said = [f"{names[row]} for {names[column]} {_times(int(wrong[row, column]))}" for row, column in worst]
    said = [words for words, (row, column) in zip(said, worst, strict=True) if wrong[row, column]]
    commonest = f"; most often it takes {', '.join(said)}" if said else ""
    caption = f"The student is wrong on {int(wrong.sum()):,} of {int(counts.sum()):,} examples{commonest}."
    return Drawing("confusion", "What the student confuses", figure, caption)


def draw_calibration(evaluation: Evaluation) -> Drawing:
    """How often predictions of each confidence are right, student against teacher."""
    figure, said = blank_figure("confidence", "share that is right"), []
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": "var(--muted)", "dash": "dot", "width": 1}, showlegend=False
    )
    for name in ("teacher", "student"):
        if name in evaluation.models and np.isfinite(evaluation.models[name].answers).all():
            curve = reliability_curve(evaluation.labels, evaluation.models[name].answers)
            sizes = 5 + 12 * np.sqrt(curve.count / curve.count.max())
            figure.add_scatter(
                x=curve.confidence.tolist(),
                y=curve.accuracy.tolist(),
                mode="lines+markers",
                name=name,
                marker=marker(name, size=sizes.tolist()),
                line={"color": f"var(--{name})", "width": 1.5},
            )
            error = evaluation.summary[name]["expected_calibration_error"]["value"]
            said.append(f"{error:.4f} for the {name}")
    caption = f"On the dotted line, confidence is what it says. Expected calibration error: {', '.join(said)}."
    return Drawing("calibration", "Whether confidence can be trusted", figure, caption)


def _interval_bar(found: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Error bars from the ends of intervals, of which neither side need be as long as the other."""
    return {
        "symmetric": False,
        "array": [each["upper"] - each["value"] for each in found],
        "arrayminus": [each["value"] - each["lower"] for each in found],
        "thickness": 3,
        "width": 0,
    }


def _binned(losses: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most MAX_POSITIONS points: the middle of some neighbouring positions, from 1, and their mean loss."""
    size = math.ceil(len(losses) / MAX_POSITIONS) or 1
    bins = [(start, losses[start : start + size]) for start in range(0, len(losses), size)]
    kept = [(start, [loss for loss in part if math.isfinite(loss)]) for start, part in bins]
    points = [(start + (len(part) + 1) / 2, sum(part) / len(part)) for start, part in kept if part]
    return [place for place, _ in points], [loss for _, loss in points]


def _on_subgroup(evaluation: Evaluation, group: str, found: Mapping[str, float]) -> str:
    count = f"{len(evaluation.groups[group]):,} {evaluation.measures.unit}"
    return f"{group}, {found['value']:.4f} ({found['lower']:.4f} to {found['upper']:.4f}) on {count}"


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
