from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import sklearn.metrics as sk
from scipy.special import softmax

from distill_platform.evaluate.metrics import METRICS, confusion_matrix, reliability_curve


def made(seed: int, num_examples: int = 300, num_classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(num_examples, num_classes))
    labels = np.where(rng.random(num_examples) < 0.6, logits.argmax(1), rng.integers(num_classes, size=num_examples))
    return labels.astype(np.int64), logits


def sk_macro(score: Callable[..., float]) -> Callable[..., float]:
    return lambda labels, logits: score(labels, logits.argmax(1), average="macro", zero_division=0)


REFERENCES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": lambda labels, logits: sk.accuracy_score(labels, logits.argmax(1)),
    "macro_precision": sk_macro(sk.precision_score),
    "macro_recall": sk_macro(sk.recall_score),
    "macro_f1": sk_macro(sk.f1_score),
    "log_loss": lambda labels, logits: sk.log_loss(labels, softmax(logits, axis=1), labels=range(logits.shape[1])),
    "brier": lambda labels, logits: sk.brier_score_loss(
        labels, softmax(logits, axis=1), labels=range(logits.shape[1]), scale_by_half=False
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_metric_equals_scikit_learns(name: str) -> None:
    for seed in range(5):
        labels, logits = made(seed)
        assert METRICS[name].function(labels, logits) == pytest.approx(REFERENCES[name](labels, logits), abs=1e-12)


@pytest.mark.parametrize("name", ["macro_precision", "macro_recall", "macro_f1"])
def test_macro_metrics_leave_out_classes_neither_seen_nor_predicted_as_scikit_learn_does(name: str) -> None:
    labels, logits = made(0)
    labels = np.where(labels == 3, 2, labels)  # class 3 is predicted and never right
    logits[:, 4] = -50
    labels = np.where(labels == 4, 0, labels)  # class 4 does not occur at all
    assert METRICS[name].function(labels, logits) == pytest.approx(REFERENCES[name](labels, logits), abs=1e-12)


def test_calibration_error_equals_a_loop_over_bins() -> None:
    labels, logits = made(1)
    probabilities = softmax(logits, axis=1)
    expected = 0.0
    for low in range(15):
        held = [
            (max(p), float(p.argmax() == label))
            for p, label in zip(probabilities, labels, strict=True)
            if low / 15 <= max(p) < (low + 1) / 15
        ]
        if held:
            confidence, right = np.mean(held, axis=0)
            expected += len(held) / len(labels) * abs(right - confidence)
    assert METRICS["expected_calibration_error"].function(labels, logits) == pytest.approx(expected, abs=1e-12)


def test_every_metric_is_best_for_a_certain_and_right_model() -> None:
    labels = np.arange(12, dtype=np.int64) % 3
    logits = 100.0 * np.eye(3)[labels]
    assert {name: metric.function(labels, logits) for name, metric in METRICS.items()} == pytest.approx(
        {name: metric.best for name, metric in METRICS.items()}
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", METRICS)
def test_a_logit_that_is_not_finite_makes_every_metric_nan(name: str, bad: float) -> None:
    labels, logits = made(0)
    logits[7, 2] = bad
    assert math.isnan(METRICS[name].function(labels, logits))


def test_log_loss_of_large_float32_logits_is_finite() -> None:
    labels = np.array([0, 1], np.int64)
    logits = np.array([[0.0, 1e4], [0.0, 1e4]], np.float32)
    assert METRICS["log_loss"].function(labels, logits) == pytest.approx(5_000)


def test_confusion_matrix_counts_labels_by_row_and_keeps_classes_that_do_not_occur() -> None:
    labels, predicted = np.array([0, 0, 1]), np.array([0, 2, 1])
    assert confusion_matrix(labels, np.eye(4)[predicted]).tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [0] * 4, [0] * 4]


def test_reliability_curve_gives_the_calibration_error_back() -> None:
    labels, logits = made(2)
    curve = reliability_curve(labels, logits)
    assert curve.count.sum() == len(labels)
    error = (curve.count / len(labels) * np.abs(curve.accuracy - curve.confidence)).sum()
    assert error == pytest.approx(METRICS["expected_calibration_error"].function(labels, logits))
