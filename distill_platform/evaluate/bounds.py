"""How sure a measured number is.

Every function gives a two-sided interval of the asked confidence. Each end of it is a one-sided bound with half of the
error, so a gate that wants one-sided 95% asks for 90%.

    a share of examples                       Clopper–Pearson, exact
    a share minus another model's             Tango's score interval for paired proportions
    a share of what comes in clusters         Clopper–Pearson on the effective number (Korn–Graubard)
    any other metric, alone or paired         percentile bootstrap over examples, seeded
    a quantile of latency                     order statistics, free of any distribution

Where an example holds many tokens the bootstrap draws whole examples, for tokens of one block depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.sparse import issparse
from scipy.sparse import vstack as sparse_vstack
from scipy.stats import beta, binom, binomtest, norm
from scipy.stats import t as student_t

from distill_platform.evaluate.measures import Measures
from distill_platform.evaluate.metrics import Answers, Array, Labels, Metric

TWO_SIDED_95 = 0.95
ONE_SIDED_95 = 0.90

RESAMPLES = 2_000
SEED = 0
CHUNK_WEIGHTS = 4_000_000
"""Weights held at once, which bounds the memory: 32 MB."""

CERTAIN = 1e12
"""A score beyond any quantile, for a difference that the counts rule out."""

Measure = Callable[[Array], Array]
"""Weights of examples [R, N] -> the value of each resample [R]."""


class Interval(NamedTuple):
    """Ends of an interval; NaN where nothing can be said."""

    lower: float
    upper: float


NOTHING = Interval(math.nan, math.nan)


def proportion_interval(successes: int, trials: int, confidence: float) -> Interval:
    """Exact interval of a proportion. Clopper and Pearson 1934, Biometrika 26:404–413."""
    found = binomtest(successes, trials).proportion_ci(confidence, method="exact")
    return Interval(float(found.low), float(found.high))


def clustered_proportion_interval(
    successes: int, trials: int, clusters: int, squared_residuals: float, confidence: float
) -> Interval:
    """Interval of a proportion whose trials come in clusters that were drawn whole, such as the tokens of a block.

    With p = successes / trials, `squared_residuals` is the sum over clusters of (its successes - p times its trials)
    squared: the linearised variance of p is that times clusters / (clusters - 1) / trials^2. The design effect, that
    variance over p (1 - p) / trials, divides the number of trials, and Clopper and Pearson's interval is taken of the
    effective number, corrected for the degrees of freedom. It is never taken to be more than the trials themselves.
    Korn and Graubard 1998, Survey Methodology 24:193–201, section 3. Exact where each trial is a cluster of its own,
    [0, 1] of fewer than two clusters.
    """
    if clusters < 2:
        return Interval(0.0, 1.0)
    if clusters == trials:
        return proportion_interval(successes, trials, confidence)
    share, tail = successes / trials, (1 + confidence) / 2
    binomial, variance = share * (1 - share) / trials, squared_residuals * clusters / (clusters - 1) / trials**2
    effective = float(trials) if variance <= binomial else binomial / variance * trials
    if binomial == 0:
        effective = float(clusters)  # nothing varies, so nothing tells how the trials of a cluster depend on each other
    effective *= float((student_t.ppf(tail, trials - 1) / student_t.ppf(tail, clusters - 1)) ** 2)
    hits, misses = share * effective, (1 - share) * effective
    lower = float(beta.ppf(1 - tail, hits, misses + 1)) if hits > 0 else 0.0
    upper = float(beta.ppf(tail, hits + 1, misses)) if misses > 0 else 1.0
    return Interval(lower, upper)


def paired_difference_interval(only_first: int, only_second: int, trials: int, confidence: float) -> Interval:
    """Score interval of p_first - p_second, two proportions of the same trials.

    `only_first` counts the trials that succeeded for the first alone, `only_second` for the second alone.
    Tango 1998, Statistics in Medicine 17:891–908, equation 11 inverted; the constrained estimate of the discordant
    probability is the root of his quadratic (section 3).
    """
    z = float(norm.ppf((1 + confidence) / 2))
    estimate = (only_first - only_second) / trials

    def score(difference: float) -> float:
        a = 2 * trials
        b = -only_first - only_second + (2 * trials - only_first + only_second) * difference
        c = -only_second * difference * (1 - difference)
        second = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = trials * (2 * second + difference * (1 - difference))
        excess = only_first - only_second - trials * difference
        return excess / math.sqrt(variance) if variance > 0 else float(np.sign(excess)) * CERTAIN

    def end(limit: float, wanted: float) -> float:
        if estimate == limit:
            return limit
        inside = limit + 1e-12 * (estimate - limit)  # at the limit itself the variance is 0
        return float(brentq(lambda difference: score(difference) - wanted, inside, estimate, xtol=1e-10))

    return Interval(end(-1.0, z), end(1.0, -z))


def quantile_interval(samples: Sequence[float], quantile: float, confidence: float) -> Interval:
    """Interval of a quantile between two order statistics; an end is infinite where the samples are too few.

    The number of samples below the true quantile is binomial whatever the distribution (David and Nagaraja 2003,
    Order Statistics, section 7.1). Samples are taken to be independent.
    """
    if not samples or not all(map(math.isfinite, samples)):
        return NOTHING
    ordered, error = sorted(samples), (1 - confidence) / 2
    below = int(binom.ppf(error, len(ordered), quantile))  # x_(below) is under the quantile: 1-based
    above = int(binom.ppf(1 - error, len(ordered), quantile)) + 1
    lower = ordered[below - 1] if below >= 1 else -math.inf
    return Interval(lower, ordered[above - 1] if above <= len(ordered) else math.inf)


def samples_needed(quantile: float, confidence: float) -> int:
    """The least number of samples for which `quantile_interval` has a finite upper end."""
    return math.ceil(math.log((1 - confidence) / 2) / math.log(quantile))


def metric_intervals(
    measures: Measures, names: Iterable[str], labels: Labels, answers: Answers, confidence: float
) -> dict[str, Interval]:
    """Intervals of metrics of one model: exact for shares of examples, bootstrap for the others.

    Each is widened to hold the measured value where it does not: resampling adds to absolute gaps, so resampled
    calibration errors lie above the measured one.
    """
    wanted = {name: measures.metrics[name] for name in names}
    if not len(labels) or not np.isfinite(answers).all():
        return dict.fromkeys(wanted, NOTHING)
    resampled = {name: metric for name, metric in wanted.items() if not metric.is_share}
    ends = _percentiles(
        [_alone(measures, metric, labels, answers, good) for metric in resampled.values() for good in (False, True)],
        len(labels),
        confidence,
    )
    found = {}
    for (name, metric), lower, upper in zip(resampled.items(), ends[0::2], ends[1::2], strict=True):
        value = metric.function(labels, answers)
        found[name] = Interval(min(lower.lower, value), max(upper.upper, value))
    for name, metric in wanted.items():
        if metric.is_share:
            found[name] = proportion_interval(int(_hits(metric, labels, answers).sum()), len(labels), confidence)
    return {name: found[name] for name in wanted}


def difference_interval(
    measures: Measures, name: str, labels: Labels, answers: Answers, other: Answers, factor: float, confidence: float
) -> Interval:
    """Interval of a metric of `answers` minus `factor` times that of `other`, both on the same examples.

    A ratio to another model is such a difference: the metric is at most 1.05 times the other's where it minus 1.05
    times the other's is at most 0.
    """
    metric = measures.metrics[name]
    if not len(labels) or not (np.isfinite(answers).all() and np.isfinite(other).all()):
        return NOTHING
    if metric.is_share and factor == 1:
        right, other_right = _hits(metric, labels, answers), _hits(metric, labels, other)
        only, only_other = int((right & ~other_right).sum()), int((other_right & ~right).sum())
        return paired_difference_interval(only, only_other, len(labels), confidence)

    def difference(good: bool) -> Measure:
        first = _alone(measures, metric, labels, answers, good)
        second = _alone(measures, metric, labels, other, not good)
        return lambda weights: first(weights) - factor * second(weights)

    lower, upper = _percentiles([difference(False), difference(True)], len(labels), confidence)
    return Interval(lower.lower, upper.upper)


def _hits(metric: Metric, labels: Labels, answers: Answers) -> NDArray[np.bool_]:
    return np.asarray(metric.statistics(labels, answers)[:, 0] > 0)


def _alone(measures: Measures, metric: Metric, labels: Labels, answers: Answers, good: bool) -> Measure:
    """The metric as a function of weights [R, N + 1]; the last weighs one example more than was seen.

    Of a model without a fault every resample is faultless: a plain bootstrap would be certain on ten examples. As
    Clopper–Pearson's lower limit is a quantile of Beta(k, n - k + 1), one failure more than was seen, so the lower end
    of what predictions alone decide is drawn with one more example that is wrong, and the upper end with one more that
    is right; of a block, whose tokens are hardly all wrong at once, one token more than in the average block is.
    Metrics of probabilities have no worst example: theirs is the average one.
    """
    seen = metric.statistics(labels, answers)
    if metric.of_predictions:
        extra = metric.statistics(labels, measures.one_more(labels, answers, good)).mean(axis=0)
    else:
        extra = seen.mean(axis=0)
    statistics = _append_row(seen, extra)
    return lambda weights: metric.of_means(weights @ statistics)


def _append_row(rows: Any, row: Array) -> Any:
    return sparse_vstack([rows, row[None, :]], format="csr") if issparse(rows) else np.vstack([rows, row])


def _percentiles(measures: Sequence[Measure], num_examples: int, confidence: float) -> list[Interval]:
    """The interval of each measure over RESAMPLES draws, the same draws for all."""
    if not measures:
        return []
    chunks = [np.stack([measure(weights) for measure in measures]) for weights in _draws(num_examples)]
    values, error = np.concatenate(chunks, axis=1), (1 - confidence) / 2
    lower = np.quantile(values, error, axis=1, method="lower")
    upper = np.quantile(values, 1 - error, axis=1, method="higher")
    return [Interval(float(low), float(high)) for low, high in zip(lower, upper, strict=True)]


def _draws(num_examples: int) -> Iterator[Array]:
    """Weights [r, N + 1] that sum to 1, in chunks: how often N draws took each example, and one more than was seen."""
    generator = np.random.default_rng(SEED)
    chances = np.full(num_examples + 1, 1 / (num_examples + 1))
    chunk = max(1, CHUNK_WEIGHTS // (num_examples + 1))
    for done in range(0, RESAMPLES, chunk):
        counts = generator.multinomial(num_examples, chances, size=min(chunk, RESAMPLES - done))
        yield counts / num_examples
