"""Distillation losses as pure functions. Computed in log-space, in fp32 or in the inputs' own type if it is wider.

Axes: C classes, K kept; the axes before them are positions. Settings may be numbers or tensors that broadcast; nothing
branches on a tensor's value.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_platform.cache import SampledTarget, TopKTarget

SMALLEST_EXCESS = 2.0**-10
"""Of the tail over its tangent: below it there is only the rounding of fp16."""


def soft_targets(student: Tensor, teacher: Tensor, temperature: float | Tensor, mask: Tensor | None = None) -> Tensor:
    """KL(teacher || student) of the softened distributions, mean over the counted positions, in nats, times T^2.

    student, teacher: raw logits `[…, C]`; mask `[…]`: which positions count (None: all). T^2 keeps the gradient's scale
    as T grows. Zero exactly where student and teacher agree.

    Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    log_student = F.log_softmax(_wide(student) / temperature, dim=-1)
    log_teacher = F.log_softmax(_wide(teacher) / temperature, dim=-1)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(-1)
    return _mean(divergence, mask) * temperature**2


def soft_targets_topk(
    student: Tensor, teacher: TopKTarget, temperature: float | Tensor, mask: Tensor | None = None
) -> Tensor:
    """As `soft_targets`, over K + 1 buckets: each kept class, and all others together.

    student: raw logits `[…, C]`. The student's mass of the others is exact, so nothing is renormalised over the K and
    nothing pulls on the others as long as their mass is right; at T = 1 the teacher's is exact too, and the gradient is
    0 where student and teacher agree. At other T the teacher's is `tail_log_sum_exp`.
    """
    kept = _wide(student.gather(-1, teacher.ids)) / temperature
    without_kept = _wide(student).scatter(-1, teacher.ids, -torch.inf)
    others = (without_kept / temperature).logsumexp(-1, keepdim=True)
    log_student = F.log_softmax(torch.cat((kept, others), -1), dim=-1)
    log_teacher = bucket_log_probabilities(teacher, temperature)
    divergence = (log_teacher.exp() * (log_teacher - log_student)).sum(-1)
    return _mean(divergence, mask) * temperature**2


def bucket_log_probabilities(teacher: TopKTarget, temperature: float | Tensor) -> Tensor:
    """The teacher's softened log-probabilities of each kept class and, last, of all others together, `[…, K + 1]`."""
    others = tail_log_sum_exp(teacher, temperature)
    return F.log_softmax(torch.cat((_wide(teacher.logits) / temperature, others[..., None]), -1), dim=-1)


def tail_log_sum_exp(teacher: TopKTarget, temperature: float | Tensor) -> Tensor:
    """Log-sum-exp of the C - K logits that are not kept, at a temperature of 1 or above, `[…]`.

    With b = 1/T it is a convex function f(b) of which four things are known: f(0) = log(C - K), f'(0) is their mean m,
    and f(1/2) and f(1) are stored. f(b) = f(0) + m b + g(b) b^2 with log g linear in b through both: exact at T = 1,
    at T = 2 and as T grows without bound. g is positive as a convex f lies above its tangent, and grows where the tail
    is skewed. A constant g (a parabola, without the point at T = 2) was wrong by 0.01 nats of KL at 100 classes and by
    0.3 at 131,072; a linear g by 0.001 and 0.009, this one by 0.0006 and 0.002.
    """
    b = 1 / temperature
    flat, mean = math.log(teacher.num_classes - teacher.ids.shape[-1]), _wide(teacher.tail_mean)
    at_1 = (_wide(teacher.tail_lse) - flat - mean).clamp(min=SMALLEST_EXCESS).log()
    at_2 = (4 * (_wide(teacher.tail_lse_at_2) - flat - mean / 2)).clamp(min=SMALLEST_EXCESS).log()
    return flat + mean * b + torch.exp((2 * b - 1) * at_1 + (2 - 2 * b) * at_2) * b**2


def soft_targets_sampled(student: Tensor, teacher: SampledTarget, mask: Tensor | None = None) -> Tensor:
    """Cross-entropy of the student against the sampled estimate of the teacher, mean over the counted positions, nats.

    student: raw logits `[…, C]`; T = 1. Over the draws of the cache its mean is KL(teacher || student) plus the
    teacher's entropy, and its gradient's mean is that of `soft_targets`: softmax(student) - p, so 0 where they agree.

    Anshumann et al. 2025, arXiv:2503.16870, section 3.
    """
    logits = _wide(student)
    drawn = (teacher.weights * logits.gather(-1, teacher.ids)).sum(-1)
    return _mean(logits.logsumexp(-1) - drawn, mask)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the positions that count."""
    if mask is None:
        return values.mean()
    counted = mask.to(values.dtype)
    return (values * counted).sum() / counted.sum().clamp(min=1)
