"""How a gate is written.

    accuracy >= 0.90                    METRIC OP NUMBER
    accuracy >= teacher - 0.05          METRIC OP [NUMBER *] MODEL [+ NUMBER | - NUMBER]
    size_bytes <= 0.5 * teacher

OP is >= for a metric of which more is better, and <= for one of which less is.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from distill_platform.errors import GateError
from distill_platform.evaluate.latency import QUANTILES
from distill_platform.evaluate.metrics import METRICS

MODELS = ("teacher", "baseline", "champion")
EXACT = ("size_bytes", "num_parameters")
GATE_METRICS = (*METRICS, *QUANTILES, *EXACT)

_TOKEN = re.compile(r"[A-Za-z_]\w*|(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[<>=!]+|\S")


@dataclass(frozen=True)
class Gate:
    """`metric` of the student `op` `factor` times that of `model`, plus `offset`; without a model, `op` `offset`."""

    text: str
    metric: str
    op: str
    model: str | None
    factor: float
    offset: float


def parse_gate(text: str) -> Gate:
    """A gate from its text; the module's docstring has the grammar.

    Raises GateError, with the position, what was given and what is allowed there.
    """
    reader = _Reader(text)
    metric = reader.one_of(GATE_METRICS, "a metric")
    op = _direction(reader, metric)
    model, factor, offset = _limit(reader, metric)
    if reader.token:
        raise reader.error(f"wanted the end, got {reader.token!r}; a number has no unit, and a gate has one limit")
    return Gate(" ".join(text.split()), metric, op, model, factor, offset)


def higher_is_better(metric: str) -> bool:
    """Whether more of a gate's metric is better; of time and size, less is."""
    return metric in METRICS and METRICS[metric].higher_is_better


class _Reader:
    """The tokens of a gate, one after the other; `token` is the next one, empty at the end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [(found[0], found.start()) for found in _TOKEN.finditer(text)] + [("", len(text))]

    @property
    def token(self) -> str:
        return self._tokens[0][0]

    @property
    def position(self) -> int:
        return self._tokens[0][1]

    def take(self) -> str:
        return self._tokens.pop(0)[0] if self.token else ""

    def one_of(self, allowed: Sequence[str], what: str) -> str:
        if self.token not in allowed:
            close = difflib.get_close_matches(self.token, allowed, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise self.error(f"wanted {what} ({', '.join(allowed)}), got {self.token or 'the end'!r}{hint}")
        return self.take()

    def number(self, what: str) -> float:
        if not self.at_number():
            raise self.error(f"wanted {what}, a number such as 0.05, got {self.token or 'the end'!r}")
        return float(self.take())

    def at_number(self) -> bool:
        return self.token[:1].isdigit() or (self.token[:1] == "." and len(self.token) > 1)

    def error(self, problem: str, position: int | None = None) -> GateError:
        where = self.position if position is None else position
        return GateError(f"gate `{self._text}`, character {where + 1}: {problem}")


def _direction(reader: _Reader, metric: str) -> str:
    wanted, better = (">=", "more") if higher_is_better(metric) else ("<=", "less")
    if reader.token in (">=", "<=") and reader.token != wanted:
        raise reader.error(f"of {metric} {better} is better, so write `{metric} {wanted} …`, not {reader.token!r}")
    return reader.one_of((wanted,), "an operator")


def _limit(reader: _Reader, metric: str) -> tuple[str | None, float, float]:
    """Model, factor and offset of what stands right of the operator."""
    if not reader.at_number():
        return reader.one_of(MODELS, "a number or a model"), 1.0, _margin(reader)
    start = reader.position
    number = reader.number("the limit")
    if reader.token != "*":
        _refuse_unreachable(reader, start, metric, number)
        return None, 1.0, number
    if number == 0:
        raise reader.error("a model is taken times a number above 0, as in `0.5 * teacher`", start)
    reader.take()
    return reader.one_of(MODELS, "a model"), number, _margin(reader)


def _margin(reader: _Reader) -> float:
    if reader.token not in ("+", "-"):
        return 0.0
    sign = -1.0 if reader.take() == "-" else 1.0
    return sign * reader.number("the margin")


def _refuse_unreachable(reader: _Reader, start: int, metric: str, limit: float) -> None:
    if higher_is_better(metric) and limit > METRICS[metric].best:
        best = METRICS[metric].best
        raise reader.error(f"{metric} is at most {best:g}, so no student reaches {limit:g}; write a share", start)
