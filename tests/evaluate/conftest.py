"""Evaluations of made predictions, of a known quality, that go through the real code."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from distill_platform.evaluate.evaluation import Evaluation, ModelResult
from distill_platform.evaluate.measures import TOKENS

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
            "answers": logits_with_errors(labels, 4, np.arange(num_wrong), seed=len(name)),
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


@pytest.fixture
def grouped(evaluation: Evaluation) -> Evaluation:
    """As `evaluation`, its first 100 examples from the south, the others from the north."""
    return dataclasses.replace(
        evaluation, subgroups=(np.arange(400) >= 100).astype(np.int64), subgroup_names=("south", "north")
    )


@pytest.fixture
def token_evaluation() -> Evaluation:
    """Three language models on 60 blocks of 50 tokens, of 4 bytes each; the student loses 2% to the teacher."""
    rng = np.random.default_rng(0)
    loss = rng.normal(1.5, 0.1, 60)
    right = rng.binomial(50, 0.6, 60)

    def result(name: str, more: float, kl: float) -> ModelResult:
        sums = np.stack([50 * (loss + more), right, right, np.full(60, 50 * kl)], axis=1)
        by_position = tuple(2.0 + more - 0.01 * position for position in range(50))
        return ModelResult(name, f"{name}-digest", sums, 1_000, 4_000, (1.0,) * 200, by_position)

    return Evaluation(
        ids=[f"block-{row}" for row in range(60)],
        labels=np.tile([50, 200], (60, 1)),
        class_names=tuple("abcde"),
        data_digest="data-digest",
        threads=1,
        batch_size=1,
        hardware="a test machine",
        models={
            "teacher": result("teacher", 0.0, 0.0),
            "baseline": result("baseline", 0.1, 0.2),
            "student": result("student", 0.02, 0.05),
        },
        measures=TOKENS,
    )
