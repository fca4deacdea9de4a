"""What a person sees: progress and log lines on stderr, results on stdout."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from distill_platform import progress

PIPED_WIDTH = 160
"""Columns of a table that no terminal bounds."""


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, sort_keys=False, allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; None is shown as a dash."""
    table = Table(title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("–" if cell is None else escape(str(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(table)


def print_checks(verdict: Mapping[str, Any]) -> None:
    """A verdict's checks, each with its reason below it."""
    for check in verdict["checks"]:
        typer.echo(f"{'pass' if check['passed'] else 'FAIL'}  {check['gate']}\n      {check['reason']}")


def print_models(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Each model's figures, of what was measured of it and of what it costs; with subgroups, a table of those too."""
    shown = {name: heading for name, heading in _HEADINGS.items() if any(name in row for row in rows.values())}
    headline = next(iter(shown))
    table = [(name, *(_cell(row, metric, metric == headline) for metric in shown)) for name, row in rows.items()]
    print_table("", ("model", *shown.values()), table)
    groups = next(iter(rows.values())).get("subgroups", {})
    if groups:
        found = [
            (group, counted["num_examples"], *(interval(row["subgroups"][group], headline) for row in rows.values()))
            for group, counted in groups.items()
        ]
        worst = (interval(row, f"worst_group_{headline}") for row in rows.values())
        print_table(f"{headline} by subgroup", ("subgroup", "number", *rows), [*found, ("worst", None, *worst)])


def is_below(row: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a model's first figure is worse than another's."""
    if "perplexity" in row:
        return None not in (row["perplexity"], other["perplexity"]) and bool(row["perplexity"] > other["perplexity"])
    return None not in (row["accuracy"], other["accuracy"]) and bool(row["accuracy"] < other["accuracy"])


_HEADINGS = {
    "perplexity": "perplexity",
    "bits_per_byte": "bits/byte",
    "accuracy": "accuracy",
    "macro_precision": "precision",
    "macro_recall": "recall",
    "macro_f1": "F1",
    "teacher_agreement": "agreement",
    "num_parameters": "parameters",
    "size_bytes": "bytes",
    "latency_ms_p50": "p50 ms",
    "latency_ms_p95": "p95 ms",
}
"""What a table of models shows, of what its rows have; the first of them with its interval."""


def _cell(row: Mapping[str, Any], name: str, is_first: bool) -> object:
    if is_first:
        return interval(row, name)
    value = row.get(name)
    return value if isinstance(value, int) else figure(value, 3 if name.startswith("latency") else 4)


def print_facts(facts: Mapping[str, object]) -> None:
    """Names and values, one under the other."""
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        typer.echo(f"{name + ':':<{width + 2}}{value}")


@contextmanager
def shown_progress(debug: bool = False) -> Iterator[None]:
    """Show on stderr how far work inside is, and what it logs. Tracebacks in the log are shown with `debug` alone.

    What libraries print goes to stderr as well: stdout is for the result.
    """
    console = Console(stderr=True)
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), _Rate(), TimeRemainingColumn(), console=console, transient=True
    )
    log = logging.getLogger("distill_platform")
    handler = _ConsoleHandler(console, logging.DEBUG if debug else logging.INFO)
    log.addHandler(handler)
    try:
        with bars, progress.display(_Display(bars)), redirect_stdout(sys.stderr):
            yield
    finally:
        log.removeHandler(handler)


class _Display:
    """rich's Progress as a `progress.Display`."""

    def __init__(self, bars: Progress) -> None:
        self.bars = bars

    def start(self, description: str, total: float, unit: str) -> int:
        return self.bars.add_task(escape(description), total=total, unit=unit)

    def advance(self, task: int, amount: float) -> None:
        self.bars.advance(TaskID(task), amount)

    def finish(self, task: int) -> None:
        self.bars.remove_task(TaskID(task))


class _Rate(ProgressColumn):
    """Done, total and rate in the task's own unit: `120/900 rows  340 rows/s`."""

    def render(self, task: Task) -> Text:
        unit = task.fields["unit"]
        speed = task.finished_speed or task.speed
        rate = f"  {speed:.3g} {unit}/s" if speed else ""
        return Text(f"{task.completed:,.0f}/{task.total or 0:,.0f} {unit}{rate}")


class _ConsoleHandler(logging.Handler):
    """Log lines above the bars; errors reach the user as the message that the command ends with."""

    def __init__(self, console: Console, level: int) -> None:
        super().__init__(level)
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        if self.level <= logging.DEBUG or record.levelno < logging.ERROR:
            self.console.print(Text(record.getMessage()), soft_wrap=True)


def interval(row: Mapping[str, Any], metric: str) -> str | None:
    """A figure with its 95% interval: `0.951 [0.927, 0.969]`."""
    value, ends = row.get(metric), row.get(f"{metric}_interval")
    if value is None:
        return None
    return f"{value:.4f}" + (f" [{ends[0]:.4f}, {ends[1]:.4f}]" if ends and None not in ends else "")


def figure(value: float | None, digits: int = 4) -> str | None:
    """A number for a table, or None."""
    return None if value is None else f"{value:.{digits}f}"
