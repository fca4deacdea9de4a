"""How long work tells whoever is watching how far it is: rate and time left, on stderr.

Library code says `with track("cache", total, "rows") as advance:` and calls `advance(n)`. The CLI installs a display
with `display(...)`; without one, nothing is shown. A contextvar, so that nothing has to be handed through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

Advance = Callable[[float], None]


class Display(Protocol):
    """Shows tasks; rich's Progress behind a few lines in the CLI."""

    def start(self, description: str, total: float, unit: str) -> int: ...
    def advance(self, task: int, amount: float) -> None: ...
    def finish(self, task: int) -> None: ...


_display: ContextVar[Display | None] = ContextVar("distill_platform_display", default=None)


@contextmanager
def display(shown: Display) -> Iterator[None]:
    """Show the progress of everything inside on `shown`."""
    token = _display.set(shown)
    try:
        yield
    finally:
        _display.reset(token)


@contextmanager
def track(description: str, total: float, unit: str) -> Iterator[Advance]:
    """A task of `total` units; call what it yields with the number of units done since the last call."""
    shown = _display.get()
    if shown is None:
        yield lambda amount: None
        return
    task = shown.start(description, total, unit)
    try:
        yield lambda amount: shown.advance(task, amount)
    finally:
        shown.finish(task)
