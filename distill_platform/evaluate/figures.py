"""Drawings of how models learned and what the sweep found: plain facts in, a plotly figure and a sentence with its
numbers out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from scipy.stats import spearmanr

from distill_platform.evaluate.drawing import Drawing, blank_figure, line, marker

Trial = Mapping[str, Any]

SILENT_SHARE = 0.01


def draw_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Drawing]:
    """Validation accuracy, and loss on training and validation data, by epoch; nothing without curves."""
    if not any(curves.values()):
        return []
    accuracy, loss = blank_figure("epoch", "validation accuracy"), blank_figure("epoch", "loss")
    best, last = [], []
    for name, rows in ((name, rows) for name, rows in curves.items() if rows):
        epochs = [row["epoch"] for row in rows]
        accuracy.add_scatter(x=epochs, y=[row["val_accuracy"] for row in rows], name=name, **line(name))
        loss.add_scatter(x=epochs, y=[row["val_loss"] for row in rows], name=name, **line(name))
        dotted = {**line(name), "line": {**line(name)["line"], "dash": "dot"}, "showlegend": False}
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
    figure, said = blank_figure("epoch", "share of the gradient"), []
    for term, colour in zip(dict.fromkeys(row["term"] for row in term_shares), _COLOURS * 9, strict=False):
        rows = [row for row in term_shares if row["term"] == term]
        shares = [row["share"] for row in rows]
        figure.add_scatter(x=[row["epoch"] for row in rows], y=shares, name=term, **line(colour))
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
    figure = blank_figure("size, bytes", "validation accuracy")
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
                    marker=marker(name, size=8, symbol=symbol),
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
        figure = blank_figure("", "validation accuracy")
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            caption = _correlation(values, reached)
            _log_if_wide(figure, values)
        else:
            values = [str(value) for value in values]
            caption = _best_by_value(values, reached)
            figure.update_xaxes(type="category")
        figure.add_scatter(x=values, y=reached, mode="markers", marker=marker("student", size=7, opacity=0.75))
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
    if len(front) == 1:
        caption += f" No other is both as right and as small as {_place(front[0])}."
    elif front:
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
