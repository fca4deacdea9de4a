"""What is measured on predictions of classes. Every metric, here and of other tasks, is a function of means, over
examples, of per-example statistics.

That one form gives the value (the means of the test set) and its uncertainty: `bounds` reweights the examples thousands
of times and gets all the means with one matrix product. scikit-learn has most of these values, but one resample at a
time; the tests hold each metric to scikit-learn's.

A new metric is one entry of METRICS. What belongs together for one kind of task stands in `measures`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn.metrics
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import log_softmax, softmax

Labels = NDArray[np.int64]
Logits = NDArray[np.floating[Any]]
Answers = NDArray[np.floating[Any]]
"""What a model said of the test examples, as far as metrics need it: logits, or sums over each example's tokens."""
Array = NDArray[np.float64]

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Metric:
    """One number for a model's predictions.

    `statistics` maps labels and a model's answers to [N, K], dense or sparse; `of_means` maps means [..., K] to values
    [...]. Labels are [N] and answers raw logits [N, C], or as the task's own measures say. `best` is the value no model
    can beat. `of_predictions` says that what is predicted is all that counts, however sure the model is of it.
    `is_share` says that it is the share of examples, each on its own, whose one statistic is 1.
    """

    statistics: Callable[[Labels, Logits], Any]
    of_means: Callable[[Array], Array]
    higher_is_better: bool
    best: float
    of_predictions: bool
    description: str
    is_share: bool = False

    def function(self, labels: Labels, answers: Answers) -> float:
        """The metric of these labels and answers; NaN where an answer is not finite, or there is none."""
        if not len(labels) or not np.isfinite(answers).all():
            return float("nan")
        return float(self.of_means(self.statistics(labels, answers).mean(axis=0)))


def is_right(labels: Labels, logits: Logits) -> NDArray[np.bool_]:
    """Whether the arg max of each example's logits is its label, [N]; the first class wins a tie."""
    return np.asarray(logits.argmax(axis=1) == labels)


def confusion_matrix(labels: Labels, logits: Logits) -> NDArray[np.int64]:
    """Counts [C, C]: rows are labels, columns predictions."""
    classes = range(logits.shape[1])
    return np.asarray(sklearn.metrics.confusion_matrix(labels, logits.argmax(axis=1), labels=classes), np.int64)


@dataclass(frozen=True)
class ReliabilityCurve:
    """Mean confidence, accuracy and number of examples of each occupied bin of confidence."""

    confidence: Array
    accuracy: Array
    count: NDArray[np.int64]


def reliability_curve(labels: Labels, logits: Logits) -> ReliabilityCurve:
    """How often predictions of each confidence are right. Guo et al. 2017, arXiv:1706.04599, equations 1 and 2."""
    confidence, bins = _confidence_bins(logits)
    count = np.bincount(bins, minlength=CALIBRATION_BINS)
    occupied = count > 0

    def bin_means(values: NDArray[Any]) -> Array:
        return np.asarray(np.bincount(bins, values, CALIBRATION_BINS)[occupied] / count[occupied], np.float64)

    return ReliabilityCurve(bin_means(confidence), bin_means(is_right(labels, logits)), count[occupied])


def _right(labels: Labels, logits: Logits) -> Array:
    return is_right(labels, logits)[:, None].astype(np.float64)


def _class_counts(labels: Labels, logits: Logits) -> csr_array:
    """Indicators [N, 3C]: class c was hit, class c is the label, class c was predicted. Three at most in a row."""
    num_examples, num_classes = logits.shape
    example, predicted, right = np.arange(num_examples), logits.argmax(axis=1), is_right(labels, logits)
    rows = np.concatenate([example[right], example, example])
    columns = np.concatenate([labels[right], num_classes + labels, 2 * num_classes + predicted])
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(num_examples, 3 * num_classes))


def _nll(labels: Labels, logits: Logits) -> Array:
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    return np.asarray(-np.take_along_axis(log_p, labels[:, None], axis=1), np.float64)


def _squared_error(labels: Labels, logits: Logits) -> Array:
    errors = softmax(logits.astype(np.float64), axis=1)
    errors[np.arange(len(labels)), labels] -= 1
    return np.asarray((errors**2).sum(axis=1, keepdims=True), np.float64)


def _calibration_gaps(labels: Labels, logits: Logits) -> Array:
    """Right minus confidence, in the column of the example's bin: [N, CALIBRATION_BINS]."""
    confidence, bins = _confidence_bins(logits)
    gaps = np.zeros((len(labels), CALIBRATION_BINS))
    gaps[np.arange(len(labels)), bins] = is_right(labels, logits) - confidence
    return gaps


def _confidence_bins(logits: Logits) -> tuple[Array, NDArray[np.int64]]:
    confidence = softmax(logits.astype(np.float64), axis=1).max(axis=1)
    return confidence, np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def _only(means: Array) -> Array:
    return means[..., 0]


def _macro_precision(means: Array) -> Array:
    hit, _, predicted = np.split(means, 3, axis=-1)
    return _macro(hit, predicted, means)


def _macro_recall(means: Array) -> Array:
    hit, labelled, _ = np.split(means, 3, axis=-1)
    return _macro(hit, labelled, means)


def _macro_f1(means: Array) -> Array:
    hit, labelled, predicted = np.split(means, 3, axis=-1)
    return _macro(2 * hit, labelled + predicted, means)


def _macro(numerator: Array, denominator: Array, means: Array) -> Array:
    """Mean of the ratio over the classes seen or predicted, 0/0 counting as 0: scikit-learn's convention."""
    _, labelled, predicted = np.split(means, 3, axis=-1)
    ratio = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
    return np.asarray(ratio.sum(axis=-1) / ((labelled + predicted) > 0).sum(axis=-1))


def _summed_gaps(means: Array) -> Array:
    return np.asarray(np.abs(means).sum(axis=-1))


METRICS: dict[str, Metric] = {
    "accuracy": Metric(_right, _only, True, 1.0, True, "share of examples whose class is predicted", True),
    "macro_precision": Metric(_class_counts, _macro_precision, True, 1.0, True, "precision, each class counting alike"),
    "macro_recall": Metric(_class_counts, _macro_recall, True, 1.0, True, "recall, each class counting alike"),
    "macro_f1": Metric(_class_counts, _macro_f1, True, 1.0, True, "F1, each class counting alike"),
    "log_loss": Metric(_nll, _only, False, 0.0, False, "mean negative log-likelihood of the labels, in nats"),
    "expected_calibration_error": Metric(
        _calibration_gaps, _summed_gaps, False, 0.0, False,
        "mean distance of confidence from accuracy over 15 equal bins; Guo et al. 2017, equation 3",
    ),
    "brier": Metric(
        _squared_error, _only, False, 0.0, False,
        "squared distance of probabilities from the label, summed over classes, 0 to 2; Brier 1950",
    ),
}  # fmt: skip
