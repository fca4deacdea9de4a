"""The report's drawings: plain facts in, a plotly figure and a sentence with its numbers out.

Colours are names of CSS variables, such as var(--student): the page resolves them, so that one figure fits light, dark
and print. Each drawing's caption is also its text alternative.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from scipy.stats import spearmanr

from distill_platform.evaluate.evaluation import Evaluation
from distill_platform.evaluate.metrics import confusion_matrix, reliability_curve

Trial = Mapping[str, Any]

SILENT_SHARE = 0.01
MAX_COUNTED_CLASSES = 20
"""More classes than this leave no room for counts in the cells or for names of all rows."""


@dataclass(frozen=True)
class Drawing:
    """A figure, the name of its element in the page, and what it shows in words."""

    name: str
    title: str
    figure: go.Figure
    caption: str


def draw_intervals(evaluation: Evaluation) -> Drawing:
    """Accuracy of each model with its two-sided 95% interval."""
    figure, said = _figure("accuracy on the test split", ""), []
    for name in evaluation.models:
        found = evaluation.summary[name]["accuracy"]
        value, lower, upper = found["value"], found["lower"], found["upper"]
        bar = {"symmetric": False, "array": [upper - value], "arrayminus": [value - lower], "thickness": 3, "width": 0}
        figure.add_scatter(x=[value], y=[name], mode="markers", error_x=bar, marker=_marker(name, size=11), name=name)
        said.append(f"{name} {value:.4f} ({lower:.4f} to {upper:.4f})")
    figure.update_layout(height=130 + 34 * len(said), showlegend=False)
    figure.update_yaxes(autorange="reversed", title=None)
    caption = f"Accuracy and its 95% interval on {len(evaluation.ids):,} test examples: {', '.join(said)}."
    return Drawing("intervals", "Accuracy, and how sure it is", figure, caption)


def draw_confusion(evaluation: Evaluation) -> Drawing:
    """Which classes the student takes for which."""
    names = list(evaluation.class_names)
    counts = confusion_matrix(evaluation.labels, evaluation.models["student"].logits)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _figure("predicted", "label")
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
    figure, said = _figure("confidence", "share that is right"), []
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": "var(--muted)", "dash": "dot", "width": 1}, showlegend=False
    )
    for name in ("teacher", "student"):
        if name in evaluation.models and np.isfinite(evaluation.models[name].logits).all():
            curve = reliability_curve(evaluation.labels, evaluation.models[name].logits)
            sizes = 5 + 12 * np.sqrt(curve.count / curve.count.max())
            figure.add_scatter(
                x=curve.confidence.tolist(),
                y=curve.accuracy.tolist(),
                mode="lines+markers",
                name=name,
                marker=_marker(name, size=sizes.tolist()),
                line={"color": f"var(--{name})", "width": 1.5},
            )
            error = evaluation.summary[name]["expected_calibration_error"]["value"]
            said.append(f"{error:.4f} for the {name}")
    caption = f"On the dotted line, confidence is what it says. Expected calibration error: {', '.join(said)}."
    return Drawing("calibration", "Whether confidence can be trusted", figure, caption)


def draw_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Drawing]:
    """Validation accuracy, and loss on training and validation data, by epoch; nothing without curves."""
    if not any(curves.values()):
        return []
    accuracy, loss = _figure("epoch", "validation accuracy"), _figure("epoch", "loss")
    best, last = [], []
    for name, rows in ((name, rows) for name, rows in curves.items() if rows):
        epochs = [row["epoch"] for row in rows]
        accuracy.add_scatter(x=epochs, y=[row["val_accuracy"] for row in rows], name=name, **_line(name))
        loss.add_scatter(x=epochs, y=[row["val_loss"] for row in rows], name=name, **_line(name))
        dotted = {**_line(name), "line": {**_line(name)["line"], "dash": "dot"}, "showlegend": False}
        loss.add_scatter(x=epochs, y=[row["train_loss"] for row in rows], name=f"{name}, training", **dotted)
        top = max(rows, key=lambda row: row["val_accuracy"])
        best.append(f"{name} {top['val_accuracy']:.4f} at epoch {top['epoch']}")
        last.append(f"{name} {rows[-1]['val_loss']:.4g} (training {rows[-1]['train_loss']:.4g})")
    return [
        Drawing("curve-accuracy", "Learning: accuracy", accuracy, f"Best validation accuracy: {', '.join(best)}."),
        Drawing(
            "curve-loss",
            "Learning: loss",
            loss,
            f"Solid on validation data, dotted in training. At the end: {', '.join(last)}. The student's training loss "
            "holds its distillation terms, so only solid lines compare.",
        ),
    ]


def draw_term_shares(term_shares: Sequence[Mapping[str, Any]]) -> list[Drawing]:
    """Each loss term's share of the student's gradient, by epoch; nothing without shares."""
    if not term_shares:
        return []
    figure, said = _figure("epoch", "share of the gradient"), []
    for term, colour in zip(dict.fromkeys(row["term"] for row in term_shares), _COLOURS * 9, strict=False):
        rows = [row for row in term_shares if row["term"] == term]
        shares = [row["share"] for row in rows]
        figure.add_scatter(x=[row["epoch"] for row in rows], y=shares, name=term, **_line(colour))
        said.append(f"{term} {min(shares):.1%} to {max(shares):.1%}")
    figure.add_hline(y=SILENT_SHARE, line={"color": "var(--bad)", "dash": "dot", "width": 1})
    figure.update_yaxes(range=[0, 1.03], tickformat=".0%")
    caption = (
        f"Shares of the gradient: {', '.join(said)}. A term under the dotted line, {SILENT_SHARE:.0%}, does nothing."
    )
    return [Drawing("term-shares", "What each loss term does", figure, caption)]


def draw_sweep(trials: Sequence[Trial], baseline: Sequence[Trial], winner: Mapping[str, Any]) -> list[Drawing]:
    """Validation accuracy against size for every trial, with the Pareto front; nothing without measured trials."""
    if not _measured(trials):
        return []
    figure = _figure("size, bytes", "validation accuracy")
    for name, group in (("baseline", _measured(baseline)), ("student", _measured(trials))):
        for status, symbol in (("finished", "circle"), ("stopped", "circle-open")):
            shown = [trial for trial in group if trial["status"] == status]
            if shown:
                figure.add_scatter(
                    x=[trial["size_bytes"] for trial in shown],
                    y=[_accuracy(trial) for trial in shown],
                    text=[f"member {trial['member']}" for trial in shown],
                    mode="markers",
                    name=name,
                    legendgroup=name,
                    showlegend=status == "finished",
                    marker=_marker(name, size=8, symbol=symbol),
                )
    finished = [trial for trial in _measured(trials) if trial["status"] == "finished"]
    front = pareto_front(finished)
    if front:
        xy = {"x": [trial["size_bytes"] for trial in front], "y": [_accuracy(trial) for trial in front]}
        figure.add_scatter(**xy, mode="lines", name="Pareto front", line={"color": "var(--student)", "shape": "hv"})
    chosen = [trial for trial in finished if trial["settings"] == winner][:1]
    for trial in chosen:
        ring = {"size": 16, "symbol": "circle-open", "color": "var(--ink)", "line": {"width": 2}}
        figure.add_scatter(x=[trial["size_bytes"]], y=[_accuracy(trial)], mode="markers", name="chosen", marker=ring)
    _log_if_wide(figure, [trial["size_bytes"] for trial in (*_measured(trials), *_measured(baseline))])
    return [Drawing("sweep", "Every trial: accuracy against size", figure, _sweep_caption(trials, front, chosen))]


def draw_settings(trials: Sequence[Trial]) -> list[Drawing]:
    """For each setting that the sweep varied, validation accuracy of the finished trials against it."""
    finished = [trial for trial in _measured(trials) if trial["status"] == "finished"]
    drawings = []
    for number, setting in enumerate(dict.fromkeys(name for trial in finished for name in trial["settings"])):
        having = [trial for trial in finished if setting in trial["settings"]]
        values, reached = [trial["settings"][setting] for trial in having], [_accuracy(trial) for trial in having]
        if len(set(map(repr, values))) < 2:
            continue
        figure = _figure("", "validation accuracy")
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            caption = _correlation(values, reached)
            _log_if_wide(figure, values)
        else:
            values = [str(value) for value in values]
            caption = _best_by_value(values, reached)
            figure.update_xaxes(type="category")
        figure.add_scatter(x=values, y=reached, mode="markers", marker=_marker("student", size=7, opacity=0.75))
        figure.update_layout(height=260, showlegend=False)
        drawings.append(Drawing(f"setting-{number}", setting, figure, caption))
    return drawings


def pareto_front(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that no other beats in both validation accuracy and size, smallest first."""
    front: list[Trial] = []
    for trial in sorted(trials, key=lambda trial: (trial["size_bytes"], -_accuracy(trial))):
        if not front or _accuracy(trial) > _accuracy(front[-1]):
            front.append(trial)
    return front


def show_bytes(size_bytes: float) -> str:
    """Bytes for people, in powers of 1,000."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:.3g} {unit}"
    return f"{size_bytes:.0f} B"


_COLOURS = ("student", "teacher", "baseline", "champion")


def _figure(x_title: str, y_title: str) -> go.Figure:
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


def _marker(colour: str, **more: Any) -> dict[str, Any]:
    return {"color": f"var(--{colour})", **more}


def _line(colour: str) -> dict[str, Any]:
    return {"mode": "lines", "line": {"color": f"var(--{colour})", "width": 2}}


def _log_if_wide(figure: go.Figure, values: Sequence[float]) -> None:
    if min(values) > 0 and max(values) / min(values) >= 20:
        figure.update_xaxes(type="log", dtick=1)


def _measured(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial["status"] != "failed" and math.isfinite(_accuracy(trial))]


def _accuracy(trial: Trial) -> float:
    return float(trial["metrics"].get("val_accuracy", math.nan))


def _sweep_caption(trials: Sequence[Trial], front: Sequence[Trial], chosen: Sequence[Trial]) -> str:
    statuses = Counter(trial["status"] for trial in trials)
    words = {"finished": "finished", "stopped": "stopped early (open circles)", "failed": "failed"}
    caption = ", ".join(f"{statuses[status]} {word}" for status, word in words.items() if statuses[status])
    caption = f"Of {len(trials)} distilled trials {caption}."
    if front:
        caption += f" The front runs from {_place(front[0])} to {_place(front[-1])}."
    for trial in chosen:
        caption += f" Chosen: member {trial['member']}, {_place(trial)}."
    return caption


def _place(trial: Trial) -> str:
    return f"{_accuracy(trial):.4f} at {show_bytes(trial['size_bytes'])}"


def _correlation(values: Sequence[float], reached: Sequence[float]) -> str:
    if len(set(reached)) < 2:
        return f"All {len(reached)} trials reach the same accuracy, {reached[0]:.4f}."
    correlation = spearmanr(values, reached).statistic
    return f"Rank correlation with accuracy over {len(reached)} trials: {correlation:+.2f}."


def _best_by_value(values: Sequence[str], reached: Sequence[float]) -> str:
    best = {value: max(y for x, y in zip(values, reached, strict=True) if x == value) for value in values}
    return f"Best accuracy: {', '.join(f'{value} {accuracy:.4f}' for value, accuracy in best.items())}."


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
