"""Relations instead of values: what is asked of the student is the teacher's correlations."""

from __future__ import annotations

import torch
from torch import Tensor

from distill_platform.cache import DenseTarget
from distill_platform.objective.loss import Loss, of_logits
from distill_platform.objective.response.positions import mean
from distill_platform.objective.response.soft_targets import log_softened
from distill_platform.tasks.setting import Setting

SMALLEST_VARIANCE = 1e-8
"""Of probabilities relative to their mean: added to theirs, so that equal ones correlate too, with equal ones fully."""


def dist(
    student: Tensor,
    teacher: Tensor,
    temperature: float | Tensor,
    beta: float | Tensor,
    gamma: float | Tensor,
    mask: Tensor | None = None,
) -> Tensor:
    """beta (1 - correlation over classes) + gamma (1 - correlation over positions) of probabilities, times T^2.

    student, teacher: raw logits `[…, C]`. The first is Pearson's of each counted position's C probabilities, mean over
    the positions; the second of each class's probabilities over all counted positions, of whatever sequence, mean over
    the classes. Neither changes if those that are correlated are scaled or shifted. Zero where student and teacher
    agree, and from 0 to 2 (beta + gamma) T^2.

    Huang et al. 2022, arXiv:2205.10536, section 4, L_inter and L_intra; T^2 as in the authors' code.
    """
    log_student = log_softened(student, temperature, mask).flatten(0, -2)
    log_teacher = log_softened(teacher, temperature, mask).flatten(0, -2)
    counted = None if mask is None else mask.flatten() != 0
    inter = mean(
        1 - _pearson(_deviations(log_student.T), _deviations(log_teacher.T)), None if mask is None else mask.flatten()
    )
    intra = (1 - _pearson(_deviations(log_student, counted), _deviations(log_teacher, counted))).mean()
    return (beta * inter + gamma * intra) * temperature**2


def _pearson(deviations: Tensor, others: Tensor) -> Tensor:
    """Correlation of each column `[n, M]` -> `[M]`, of deviations from a mean of 1 over those of n that count.

    SMALLEST_VARIANCE stands in all three sums, which keeps it within -1 and 1, and at 1 where both are equal.
    """
    eps = SMALLEST_VARIANCE * len(deviations)
    variances = ((deviations**2).sum(0) + eps) * ((others**2).sum(0) + eps)
    return ((deviations * others).sum(0) + eps) / variances.sqrt()


def _deviations(log_p: Tensor, counted: Tensor | None = None) -> Tensor:
    """How far probabilities are from their column's mean, as a share of it, `[n, M]`; 0 in rows that do not count.

    Correlation knows no scale, and these are of the order of 1 where the probabilities of one of many classes are of
    1e-6, and the squares of their deviations nothing at all in fp32.
    """
    if counted is None:
        relative = (log_p - log_p.amax(0).detach()).exp()
        return relative / relative.mean(0) - 1
    rows = counted[:, None]
    within = torch.where(rows, log_p, -torch.inf)
    highest = within.amax(0).detach().clamp(min=torch.finfo(log_p.dtype).min)
    relative = (within - highest).exp()
    mean_relative = (relative.sum(0) / counted.sum().clamp(min=1)).clamp(min=torch.finfo(log_p.dtype).tiny)
    return torch.where(rows, relative / mean_relative - 1, 0)


DIST = Loss(
    functions={DenseTarget: of_logits(dist)},
    settings={
        "temperature": Setting(1.0, low=0, above=True),
        "beta": Setting(1.0, low=0),
        "gamma": Setting(1.0, low=0),
    },
)
