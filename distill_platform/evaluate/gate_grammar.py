"""How a gate is written.

    accuracy >= 0.90                    METRIC OP NUMBER
    accuracy >= teacher - 0.05          METRIC OP [NUMBER *] MODEL [+ NUMBER | - NUMBER]
    size_bytes <= 0.5 * teacher

    perplexity <= 1.05 * teacher
    worst_group_accuracy >= 0.8

METRIC is one that the task has, or a latency or a size. OP is >= for a metric of which more is better, and <= for one
of which less is. `worst_group_accuracy`, and `worst_group_perplexity` of language models, are of the subgroup of the
test data where the model is worst.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from distill_platform.errors import GateError
from distill_platform.evaluate.latency import QUANTILES
from distill_platform.evaluate.measures import CLASSES, MEASURES, WORST, Measures

MODELS = ("teacher", "baseline", "champion")
EXACT = ("size_bytes", "num_parameters")

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

    @property
    def higher_is_better(self) -> bool:
        """Whether more of its metric is better."""
        return self.op == ">="

    @property
    def is_of_worst_group(self) -> bool:
        """Whether it is about the subgroup where a model is worst."""
        return self.metric.startswith(WORST)


def gate_metrics(measures: Measures) -> tuple[str, ...]:
    """What a gate may be about, where this is measured."""
    return (*measures.metrics, measures.worst_group, *QUANTILES, *EXACT)


def parse_gate(text: str, measures: Measures = CLASSES) -> Gate:
    """A gate from its text; the module's docstring has the grammar. `measures` are those of the task.

    Raises GateError, with the position, what was given and what is allowed there.
    """
    reader = _Reader(text)
    _refuse_metric_of_another_task(reader, measures)
    metric = reader.one_of(gate_metrics(measures), "a metric")
    best = _best(metric, measures)
    op = _direction(reader, metric, best)
    model, factor, offset = _limit(reader, metric, best)
    if reader.token:
        raise reader.error(f"wanted the end, got {reader.token!r}; a number has no unit, and a gate has one limit")
    return Gate(" ".join(text.split()), metric, op, model, factor, offset)


@dataclass(frozen=True)
class _Best:
    value: float
    higher_is_better: bool


def _best(metric: str, measures: Measures) -> _Best:
    """The value that no model beats. Of time and size less is better."""
    if metric in (*QUANTILES, *EXACT):
        return _Best(0.0, False)
    found = measures.metric(metric)
    return _Best(found.best, found.higher_is_better)


def _refuse_metric_of_another_task(reader: _Reader, measures: Measures) -> None:
    named, allowed = reader.token, gate_metrics(measures)
    if named in allowed:
        return
    for other in MEASURES.values():
        if named in gate_metrics(other):
            where = f"{named} is not measured where {_ANSWERS[measures.name]}"
            raise reader.error(f"{where}; metrics are {', '.join(allowed)}")


_ANSWERS = {"classes": "each example has one class", "tokens": "every token has a label"}


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


def _direction(reader: _Reader, metric: str, best: _Best) -> str:
    wanted, better = (">=", "more") if best.higher_is_better else ("<=", "less")
    if reader.token in (">=", "<=") and reader.token != wanted:
        raise reader.error(f"of {metric} {better} is better, so write `{metric} {wanted} …`, not {reader.token!r}")
    return reader.one_of((wanted,), "an operator")


def _limit(reader: _Reader, metric: str, best: _Best) -> tuple[str | None, float, float]:
    """Model, factor and offset of what stands right of the operator."""
    if not reader.at_number():
        return reader.one_of(MODELS, "a number or a model"), 1.0, _margin(reader)
    start = reader.position
    number = reader.number("the limit")
    if reader.token != "*":
        _refuse_unreachable(reader, start, metric, best, number)
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


def _refuse_unreachable(reader: _Reader, start: int, metric: str, best: _Best, limit: float) -> None:
    if best.higher_is_better and limit > best.value:
        problem = f"{metric} is at most {best.value:g}, so no student reaches {limit:g}; write a share"
        raise reader.error(problem, start)
    if not best.higher_is_better and limit < best.value:
        raise reader.error(f"{metric} is at least {best.value:g}, so no student reaches {limit:g}", start)
