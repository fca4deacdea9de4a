"""What is measured of a kind of task, and how it is shown: of one class per example, or of one token per position.

    classes   labels [N], answers: raw logits [N, C]
    tokens    labels [N, 2], answers [N, 4]: sums over each block's tokens (token_metrics), for the logits of a test
              split, [N, T, V], are too many to keep

A task's `per_token` says which it is, so a new task of either form is measured without another line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from distill_platform.evaluate.metrics import METRICS, Answers, Labels, Logits, Metric
from distill_platform.evaluate.token_metrics import TOKEN_METRICS, one_more_sums
from distill_platform.tasks import Task

WORST = "worst_group_"


@dataclass(frozen=True)
class Measures:
    """The metrics of a kind of task.

    headline: the metric that ranks models in tables and drawings
    one_more: (labels, answers, good) -> answers whose mean is one example more than was seen, a good or a bad one: what
              bounds of metrics of predictions are drawn with (bounds)
    shown:    metric -> its heading in the report's table
    unit:     what an example is called
    method:   how intervals are made, for the reader
    """

    name: str
    metrics: Mapping[str, Metric]
    headline: str
    one_more: Callable[[Labels, Answers, bool], Answers]
    shown: Mapping[str, str]
    unit: str
    method: str

    @property
    def worst_group(self) -> str:
        """The headline of the subgroup where it is worst, by name."""
        return WORST + self.headline

    def metric(self, name: str) -> Metric:
        """The metric of a name; of the worst subgroup's, the one that is taken in each subgroup."""
        return self.metrics[name.removeprefix(WORST)]


def measures_of(task: Task) -> Measures:
    """What is measured of a task."""
    return TOKENS if task.per_token else CLASSES


def _one_more_logits(labels: Labels, logits: Logits, good: bool) -> Logits:
    """Each example right, or wrong."""
    num_classes = logits.shape[1]
    return np.eye(num_classes)[labels if good else (labels + 1) % num_classes]


CLASSES = Measures(
    name="classes",
    metrics=METRICS,
    headline="accuracy",
    one_more=_one_more_logits,
    shown={
        "accuracy": "accuracy",
        "macro_precision": "macro precision",
        "macro_recall": "macro recall",
        "macro_f1": "macro F1",
        "log_loss": "log loss",
    },
    unit="examples",
    method="exact for accuracy, bootstrap for the others",
)

TOKENS = Measures(
    name="tokens",
    metrics=TOKEN_METRICS,
    headline="perplexity",
    one_more=one_more_sums,
    shown={
        "perplexity": "perplexity",
        "bits_per_byte": "bits per byte",
        "accuracy": "accuracy",
        "log_loss": "log loss",
        "teacher_agreement": "says what the teacher says",
        "kl_to_teacher": "KL to the teacher",
    },
    unit="blocks",
    method="bootstrap over whole blocks; blocks cut from one document are not independent, so they are a little narrow",
)

MEASURES = {measures.name: measures for measures in (CLASSES, TOKENS)}
