"""Evaluations of made predictions, of a known quality, that go through the real code."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from distill_platform.evaluate.evaluation import Evaluation, ModelResult

MakeResult = Callable[..., ModelResult]


def logits_with_errors(labels: np.ndarray, num_classes: int, wrong: np.ndarray, seed: int = 0) -> np.ndarray:
    """Raw logits whose arg max is the label except at the positions `wrong`, where it is the next class."""
    logits = np.random.default_rng(seed).normal(size=(len(labels), num_classes))
    predicted = labels.copy()
    predicted[wrong] = (labels[wrong] + 1) % num_classes
    logits[np.arange(len(labels)), predicted] = logits.max(axis=1) + np.random.default_rng(seed + 1).uniform(
        0.1, 4, len(labels)
    )
    return logits.astype(np.float32)


@pytest.fixture
def labels() -> np.ndarray:
    return np.arange(400, dtype=np.int64) % 4


@pytest.fixture
def make_result(labels: np.ndarray) -> MakeResult:
    def make(name: str, num_wrong: int, **changes: object) -> ModelResult:
        fields: dict[str, object] = {
            "name": name,
            "digest": f"{name}-digest",
            "logits": logits_with_errors(labels, 4, np.arange(num_wrong), seed=len(name)),
            "num_parameters": 1_000,
            "size_bytes": 4_000,
            "latency_ms": tuple(1.0 + 0.001 * call for call in range(200)),
        }
        return ModelResult(**(fields | changes))

    return make


@pytest.fixture
def evaluation(labels: np.ndarray, make_result: MakeResult) -> Evaluation:
    """Teacher 10, student 16 and baseline 40 wrong of 400; the student is a tenth of the teacher's size."""
    models = {
        "teacher": make_result("teacher", 10, num_parameters=10_000, size_bytes=40_000),
        "baseline": make_result("baseline", 40),
        "student": make_result("student", 16),
    }
    return Evaluation(
        ids=[f"example-{row}" for row in range(400)],
        labels=labels,
        class_names=("ant", "bee", "cat", "dog"),
        data_digest="data-digest",
        threads=1,
        batch_size=32,
        hardware="a test machine",
        models=models,
    )
