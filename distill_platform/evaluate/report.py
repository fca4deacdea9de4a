"""The report: one HTML file that a person can read, mail and print. It holds all it needs and asks no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from distill_platform.evaluate import figures
from distill_platform.evaluate.drawing import Drawing
from distill_platform.evaluate.evaluation import Evaluation, table
from distill_platform.evaluate.gate import Verdict
from distill_platform.evaluate.quality_figures import draw_quality


@dataclass(frozen=True)
class ReportFacts:
    """All that a report tells, as plain values.

    Trials: {"member", "status": finished | stopped | failed, "settings": {path: value}, "metrics": {"val_accuracy", …},
    "num_parameters", "size_bytes", "seconds", "epochs"}. Curves, per model: {"epoch", "train_loss", "val_loss",
    "val_accuracy"}. Term shares: {"epoch", "term", "share"}, share of the gradient. Lineage: {"step", "key", "digest",
    "uri", "seconds", "status"}. `winner_settings` are the settings of the chosen trial.
    """

    title: str
    run_id: str
    created_at: str
    verdict: Verdict
    evaluation: Evaluation
    warnings: Sequence[str]
    sweep_trials: Sequence[Mapping[str, Any]]
    baseline_trials: Sequence[Mapping[str, Any]]
    curves: Mapping[str, Sequence[Mapping[str, Any]]]
    term_shares: Sequence[Mapping[str, Any]]
    lineage: Sequence[Mapping[str, Any]]
    winner_settings: Mapping[str, Any]
    spec_text: str


def render_report(facts: ReportFacts) -> str:
    """The report as one HTML document."""
    quality = draw_quality(facts.evaluation)
    learning = [*figures.draw_curves(facts.curves), *figures.draw_term_shares(facts.term_shares)]
    sweep = figures.draw_sweep(facts.sweep_trials, facts.baseline_trials, facts.winner_settings)
    settings = figures.draw_settings(facts.sweep_trials)
    drawings = [*quality, *learning, *sweep, *settings]
    return render_page(
        "report.html.j2",
        facts.title,
        drawings,
        facts=facts,
        rows=table(facts.evaluation),
        measures=facts.evaluation.measures,
        quality=quality,
        learning=learning,
        sweep=sweep,
        settings=settings,
    )


def render_page(template: str, title: str, drawings: Sequence[Drawing], **given: Any) -> str:
    """One HTML document with everything in it: a template that extends page.html.j2, and the drawings that it shows."""
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    return (
        _templates()
        .get_template(template)
        .render(
            **given,
            title=title,
            drawings=drawings,
            figures={drawing.name: json.loads(drawing.figure.to_json()) for drawing in drawings},
            style=Markup(style),
            plotly_js=Markup(get_plotlyjs()),
        )
    )


def _templates() -> Environment:
    loader = PackageLoader("distill_platform", "evaluate")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["bytes"] = figures.show_bytes
    environment.filters["figure"] = _show_figure
    environment.filters["setting"] = lambda value: f"{value:.4g}" if isinstance(value, float) else value
    environment.filters["count"] = "{:,}".format
    return environment


def _show_figure(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
