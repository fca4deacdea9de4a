"""What a loss may be set to, beside its weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """A number, a truth value or one of several words: of the type of `default`, and what it may be.

    low, high: bounds of a number, both allowed unless `above` says that `low` itself is not.
    choices:   the words that there are.
    """

    default: float | bool | str
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    choices: tuple[str, ...] = ()

    @property
    def is_number(self) -> bool:
        """Whether it is a number: those may be swept over a range."""
        return not isinstance(self.default, bool | str)

    @property
    def wanted(self) -> str:
        """What it may be, in words."""
        if isinstance(self.default, bool):
            return "true or false"
        if isinstance(self.default, str):
            return f"one of {', '.join(self.choices)}"
        low = [] if self.low == -math.inf else [f"{'>' if self.above else '>='} {self.low:g}"]
        high = [] if self.high == math.inf else [f"<= {self.high:g}"]
        return " ".join(["a number", " and ".join([*low, *high])]).strip()

    def takes(self, value: Any) -> bool:
        """Whether it may be this."""
        if isinstance(self.default, bool):
            return isinstance(value, bool)
        if isinstance(self.default, str):
            return value in self.choices
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and not (self.above and value == self.low)


TEMPERATURE = Setting(4.0, low=0, above=True)
LABEL_SMOOTHING = Setting(0.0, low=0, high=1)
