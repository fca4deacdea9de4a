"""Numbers of an objective that change while a student trains: a term's weight, a temperature.

In a spec `{from: a, to: b}` instead of a number, with `until` and `shape` beside them where they differ from DEFAULTS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda share: share,
    "cosine": lambda share: (1 - math.cos(math.pi * share)) / 2,
}
"""Share of the way in time, 0 to 1 -> share of the way from the first value to the last."""

DEFAULTS: dict[str, Any] = {"until": 1.0, "shape": "linear"}
"""until: share of all steps after which the last value stays."""


def is_schedule(value: Any) -> bool:
    """Whether a value of a spec is a schedule, and no number, word or truth value."""
    return isinstance(value, Mapping) and {"from", "to"} <= value.keys()


def value_at(value: Any, done: float) -> Any:
    """What a schedule says after a share `done` of all steps, 0 to 1; any other value is what it always is."""
    if not is_schedule(value):
        return value
    given = {**DEFAULTS, **value}
    share = SHAPES[given["shape"]](min(done / given["until"], 1.0))
    return (1 - share) * given["from"] + share * given["to"]


def ends(value: Any) -> tuple[Any, ...]:
    """The first and the last value of a schedule, between which all others lie; any other value alone."""
    return (value["from"], value["to"]) if is_schedule(value) else (value,)
