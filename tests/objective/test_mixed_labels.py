"""The task loss of mixed examples is cross-entropy with their mixed labels."""

from __future__ import annotations

import math

import pytest
import torch

from distill_platform.cache import DenseTarget
from distill_platform.data.mixing import MixedLabels
from distill_platform.models import Output
from distill_platform.models.capture import Answer
from distill_platform.objective import Objective, TeacherAnswer
from distill_platform.tasks import TASKS

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(64, 5, generator=GENERATOR)
LABELS = LOGITS.argmax(-1)
MIXED = MixedLabels(
    torch.randint(5, (64,), generator=GENERATOR), torch.randint(257, (64,), generator=GENERATOR).float() / 256
)


def task_loss(mixed: MixedLabels | None, smoothing: float = 0.0) -> float:
    objective = Objective.of(TASKS["classification"], {"task": {"weight": 1.0, "label_smoothing": smoothing}})
    return objective(Answer({"logits": Output(LOGITS)}, {}), LABELS, None, mixed)["task"].item()


def naive(smoothing: float) -> float:
    """Cross-entropy with mixed, smoothed one-hot labels, one example and class at a time in float64."""
    total = 0.0
    for row in range(64):
        logits = [float(value) for value in LOGITS[row]]
        log_sum = math.log(sum(math.exp(value) for value in logits))
        share = [smoothing / 5] * 5
        share[int(LABELS[row])] += (1 - smoothing) * float(MIXED.weight[row])
        share[int(MIXED.partner[row])] += (1 - smoothing) * (1 - float(MIXED.weight[row]))
        total += sum(part * (log_sum - value) for part, value in zip(share, logits, strict=True))
    return total / 64


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_task_loss_is_cross_entropy_with_the_mixed_labels(smoothing: float) -> None:
    assert task_loss(MIXED, smoothing) == pytest.approx(naive(smoothing), rel=1e-6)
    assert abs(task_loss(MIXED, smoothing) - task_loss(None, smoothing)) > 0.1


def test_a_label_mixed_with_nothing_is_that_label() -> None:
    assert task_loss(MixedLabels(LABELS, torch.ones(64))) == pytest.approx(task_loss(None), rel=1e-6)
    assert task_loss(MixedLabels(LABELS, MIXED.weight)) == pytest.approx(task_loss(None), rel=1e-6)


def test_distillation_losses_are_left_as_they_are() -> None:
    objective = Objective.of(TASKS["classification"], {"soft_targets": {"weight": 1.0, "temperature": 2.0}})
    teacher, answer = TeacherAnswer(DenseTarget(LOGITS.flip(0))), Answer({"logits": Output(LOGITS)}, {})
    assert torch.equal(
        objective(answer, LABELS, teacher, MIXED)["soft_targets"], objective(answer, LABELS, teacher)["soft_targets"]
    )
