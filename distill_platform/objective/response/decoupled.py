"""Decoupled distillation: how probable the label is, and how the other classes compare, weighted apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_platform.cache import DenseTarget
from distill_platform.objective.loss import Loss, of_logits
from distill_platform.objective.response.positions import covered, mean, wide
from distill_platform.objective.response.soft_targets import STANDARDIZE, kl, standardized
from distill_platform.tasks import UNLABELLED
from distill_platform.tasks.setting import TEMPERATURE, Setting


def dkd(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float | Tensor,
    alpha: float | Tensor,
    beta: float | Tensor,
    mask: Tensor | None = None,
    standardize: bool = False,
) -> Tensor:
    """alpha KL(b_teacher || b_student) + beta KL(p̂_teacher || p̂_student), mean over the counted positions, times T^2.

    student, teacher: raw logits `[…, C]`; labels `[…]`, of which the UNLABELLED do not count. b is the softened
    probability of the label and of all else, p̂ the distribution over all else. With alpha 1 and, position by position,
    beta the teacher's probability of all else, it is `soft_targets` (section 3.1 of the paper).

    Zhao et al. 2022, arXiv:2203.08679, equation 7.
    """
    labelled = labels != UNLABELLED
    counted = labelled if mask is None else torch.where(labelled, mask, 0)
    label = labels.clamp(min=0)[..., None]
    log_b_student, log_rest_student = _decoupled(student, label, temperature, counted, standardize)
    log_b_teacher, log_rest_teacher = _decoupled(teacher, label, temperature, counted, standardize)
    parts = alpha * kl(log_b_teacher, log_b_student) + beta * kl(log_rest_teacher, log_rest_student)
    return mean(parts, counted) * temperature**2


def _decoupled(
    logits: Tensor, label: Tensor, temperature: float | Tensor, counted: Tensor, standardize: bool
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the label and of all else `[…, 2]`, and of each other class among all else `[…, C]`.

    In the second, the label's own entry is -1e9 for either model: its probability and its term are exactly 0.
    """
    values = wide(covered(logits, counted))
    softened = (standardized(values) if standardize else values) / temperature
    without_label = softened.scatter(-1, label, -torch.inf)
    all_else = without_label.logsumexp(-1, keepdim=True)
    log_binary = F.log_softmax(torch.cat((softened.gather(-1, label), all_else), -1), dim=-1)
    return log_binary, (without_label - all_else).scatter(-1, label, -1e9)


DKD = Loss(
    functions={DenseTarget: of_logits(dkd)},
    settings={
        "temperature": TEMPERATURE,
        "alpha": Setting(1.0, low=0),
        "beta": Setting(8.0, low=0),
        "standardize": STANDARDIZE,
    },
    needs_labels=True,
    dense_only=("standardize",),
)
