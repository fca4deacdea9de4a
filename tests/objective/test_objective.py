"""The weighted combination, term by term."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distill_platform.cache import DenseTarget
from distill_platform.models import Output
from distill_platform.objective import Objective, without_teacher
from distill_platform.objective.losses import soft_targets
from distill_platform.objective.objective import gradient_shares
from distill_platform.tasks import TASKS

STUDENT = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
TEACHER = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 4


def test_each_term_is_its_weight_times_its_loss() -> None:
    objective = Objective.of(
        TASKS["classification"], {"task": {"weight": 0.25}, "soft_targets": {"weight": 2.0, "temperature": 3.0}}
    )
    terms = objective({"logits": Output(STUDENT)}, LABELS, DenseTarget(TEACHER))
    assert terms["task"] == pytest.approx(0.25 * F.cross_entropy(STUDENT, LABELS).item())
    assert terms["soft_targets"] == pytest.approx(2.0 * soft_targets(STUDENT, TEACHER, 3.0).item())


def test_settings_of_the_task_loss_reach_it() -> None:
    objective = Objective.of(TASKS["classification"], {"task": {"weight": 1.0, "label_smoothing": 0.2}})
    wanted = F.cross_entropy(STUDENT, LABELS, label_smoothing=0.2).item()
    assert objective({"logits": Output(STUDENT)}, LABELS, None)["task"].item() == pytest.approx(wanted)


def test_a_baseline_keeps_the_task_settings_and_nothing_of_the_teacher() -> None:
    terms = {"task": {"weight": 0.1, "label_smoothing": 0.2}, "soft_targets": {"weight": 0.9, "temperature": 4.0}}
    objective = Objective.of(TASKS["classification"], without_teacher(terms))
    assert without_teacher(terms) == {"task": {"weight": 1.0, "label_smoothing": 0.2}}
    assert not objective.needs_teacher


def test_gradient_shares_follow_weights_and_sum_to_one() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    shares = gradient_shares({"a": 3 * weight.sum(), "b": weight.sum(), "idle": 0 * weight.sum()}, [weight])
    assert shares == pytest.approx({"a": 0.75, "b": 0.25, "idle": 0.0})


def test_gradient_shares_leave_the_graph_for_the_step() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    terms = {"a": (weight**2).sum()}
    gradient_shares(terms, [weight])
    terms["a"].backward()
    assert weight.grad is not None
