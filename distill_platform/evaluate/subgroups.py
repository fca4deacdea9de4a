"""How good a model is on each subgroup of the examples, and on the one where it is worst.

The worst of several subgroups is bounded without any correction for their number. That a student's true worst is at
least L means that each subgroup's true figure is at least L, so each one has to be shown, at its own 95%: where one
falls short, that one's bound is above L with a chance of 5% at most, whatever the others do (intersection-union test;
Berger 1982, Technometrics 24:295-300). The other end does need one, for any of the bounds may be the one that is off:
it takes each at 1 - (1 - confidence) / subgroups (Bonferroni).

Against another model, worst(student) - f worst(other) is at least the smallest of the differences within a subgroup
(the student's worst subgroup shows it), and at most the largest; so it is bounded by the smallest of their lower
bounds, each paired, again without correction. It asks that no subgroup loses more than the margin.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from distill_platform.evaluate.bounds import NOTHING, Interval, difference_interval, metric_intervals
from distill_platform.evaluate.measures import Measures
from distill_platform.evaluate.metrics import Answers, Labels

MIN_SUBGROUP_EXAMPLES = 20
"""Fewer say little: of 20 that are all right, the one-sided bound is 0.86."""

Rows = NDArray[np.int64]
Groups = Mapping[str, Rows]
"""Name of a subgroup -> rows of its examples."""


def rows_by_group(subgroups: Rows, names: Iterable[str]) -> dict[str, Rows]:
    """Rows of each subgroup, by name; `subgroups` [N] are positions in `names`. Empty where none is in the split."""
    return {name: np.flatnonzero(subgroups == number) for number, name in enumerate(names)}


def worst_group(
    measures: Measures, labels: Labels, answers: Answers, groups: Groups, confidence: float
) -> tuple[float, str, Interval]:
    """(value, subgroup, interval) of the headline in the subgroup, of those that occur, where it is worst.

    NaN, and no subgroup's name, where some value is NaN or none occurs.
    """
    metric, occurring = measures.metrics[measures.headline], _occurring(groups)
    values = {name: metric.function(labels[rows], answers[rows]) for name, rows in occurring.items()}
    if not values or not all(map(math.isfinite, values.values())):
        return math.nan, "", NOTHING
    higher = metric.higher_is_better
    name = min(values, key=lambda group: values[group] if higher else -values[group])

    def ends(level: float) -> list[Interval]:
        found = [
            metric_intervals(measures, [measures.headline], labels[rows], answers[rows], level)
            for rows in occurring.values()
        ]
        return [interval[measures.headline] for interval in found]

    proved, corrected = ends(confidence), ends(1 - (1 - confidence) / len(occurring))
    if higher:
        return values[name], name, Interval(min(end.lower for end in proved), min(end.upper for end in corrected))
    return values[name], name, Interval(max(end.lower for end in corrected), max(end.upper for end in proved))


def worst_group_difference(
    measures: Measures,
    labels: Labels,
    answers: Answers,
    other: Answers,
    groups: Groups,
    factor: float,
    confidence: float,
) -> Interval:
    """Interval of the worst subgroup's headline minus `factor` times that of another model's worst subgroup."""
    ends = [
        difference_interval(measures, measures.headline, labels[rows], answers[rows], other[rows], factor, confidence)
        for rows in _occurring(groups).values()
    ]
    lower, upper = [end.lower for end in ends], [end.upper for end in ends]
    if not ends or not all(map(math.isfinite, [*lower, *upper])):
        return NOTHING
    return Interval(min(lower), max(upper))


def _occurring(groups: Groups) -> dict[str, Rows]:
    return {name: rows for name, rows in groups.items() if len(rows)}
