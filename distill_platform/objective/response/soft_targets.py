"""KL from the teacher's softened distribution to the student's, from whatever a cache keeps of the teacher's.

Axes: C classes, K kept; the axes before them are positions. Computed in log-space, in fp32 or wider. Settings may be
numbers or tensors that broadcast; nothing branches on a tensor's value.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_platform.cache import DenseTarget, SampledTarget, TopKTarget
from distill_platform.objective.loss import Loss, of_logits
from distill_platform.objective.response.positions import covered, mean, wide
from distill_platform.tasks.setting import TEMPERATURE, Setting

SMALLEST_EXCESS = 2.0**-10
"""Of the tail over its tangent: below it there is only the rounding of fp16."""
SMALLEST_VARIANCE = 1e-7
"""Of logits that are standardised: it is added to theirs, so that equal logits have z-scores, and gradients, at all."""

STANDARDIZE = Setting(False)


def soft_targets(
    student: Tensor,
    teacher: Tensor,
    temperature: float | Tensor,
    mask: Tensor | None = None,
    standardize: bool = False,
) -> Tensor:
    """KL(teacher || student) of the softened distributions, mean over the counted positions, in nats, times T^2.

    student, teacher: raw logits `[…, C]`; mask `[…]`: which positions count (None: all). T^2 keeps the gradient's scale
    as T grows. Zero exactly where student and teacher agree.

    Hinton et al. 2015, arXiv:1503.02531, section 2.
    """
    log_student = log_softened(student, temperature, mask, standardize)
    log_teacher = log_softened(teacher, temperature, mask, standardize)
    return mean(kl(log_teacher, log_student), mask) * temperature**2


def soft_targets_topk(
    student: Tensor, teacher: TopKTarget, temperature: float | Tensor, mask: Tensor | None = None
) -> Tensor:
    """As `soft_targets`, over K + 1 buckets: each kept class, and all others together.

    student: raw logits `[…, C]`. The student's mass of the others is exact, so nothing is renormalised over the K and
    nothing pulls on the others as long as their mass is right; at T = 1 the teacher's is exact too, and the gradient is
    0 where student and teacher agree. At other T the teacher's is `tail_log_sum_exp`.
    """
    log_student, log_teacher = log_buckets(student, teacher, temperature, mask)
    return mean(kl(log_teacher, log_student), mask) * temperature**2


def soft_targets_sampled(student: Tensor, teacher: SampledTarget, mask: Tensor | None = None) -> Tensor:
    """Cross-entropy of the student against the sampled estimate of the teacher, mean over the counted positions, nats.

    student: raw logits `[…, C]`; T = 1. Over the draws of the cache its mean is KL(teacher || student) plus the
    teacher's entropy, and its gradient's mean is that of `soft_targets`: softmax(student) - p, so 0 where they agree.

    Anshumann et al. 2025, arXiv:2503.16870, section 3.
    """
    logits = wide(covered(student, mask))
    drawn = (covered(teacher.weights, mask) * logits.gather(-1, teacher.ids)).sum(-1)
    return mean(logits.logsumexp(-1) - drawn, mask)


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) in nats, `[…]`, of log-probabilities `[…, n]`."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def log_softened(
    logits: Tensor, temperature: float | Tensor, mask: Tensor | None = None, standardize: bool = False
) -> Tensor:
    """Log-probabilities `[…, C]` of logits, or of their z-scores, over T; uniform at positions that do not count."""
    values = wide(covered(logits, mask))
    return F.log_softmax((standardized(values) if standardize else values) / temperature, dim=-1)


def standardized(logits: Tensor) -> Tensor:
    """Z-scores `[…, C]` of each position's logits: mean 0, variance 1. The student then need not match their scale.

    Sun et al. 2024, arXiv:2403.01427, algorithm 1; the variance is that over the C classes.
    """
    centred = logits - logits.mean(-1, keepdim=True)
    return centred * torch.rsqrt((centred**2).mean(-1, keepdim=True) + SMALLEST_VARIANCE)


def log_buckets(
    student: Tensor, teacher: TopKTarget, temperature: float | Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Softened log-probabilities of student and teacher of each kept class and, last, of all others, `[…, K + 1]`."""
    logits = covered(student, mask)
    kept = wide(logits.gather(-1, teacher.ids)) / temperature
    without_kept = wide(logits).scatter(-1, teacher.ids, -torch.inf)
    others = (without_kept / temperature).logsumexp(-1, keepdim=True)
    log_student = F.log_softmax(torch.cat((kept, others), -1), dim=-1)
    return log_student, covered(bucket_log_probabilities(teacher, temperature), mask)


def bucket_log_probabilities(teacher: TopKTarget, temperature: float | Tensor) -> Tensor:
    """The teacher's softened log-probabilities of each kept class and, last, of all others together, `[…, K + 1]`."""
    others = tail_log_sum_exp(teacher, temperature)
    return F.log_softmax(torch.cat((wide(teacher.logits) / temperature, others[..., None]), -1), dim=-1)


def tail_log_sum_exp(teacher: TopKTarget, temperature: float | Tensor) -> Tensor:
    """Log-sum-exp of the C - K logits that are not kept, at a temperature of 1 or above, `[…]`.

    With b = 1/T it is a convex function f(b) of which four things are known: f(0) = log(C - K), f'(0) is their mean m,
    and f(1/2) and f(1) are stored. f(b) = f(0) + m b + g(b) b^2 with log g linear in b through both: exact at T = 1,
    at T = 2 and as T grows without bound. g is positive as a convex f lies above its tangent, and grows where the tail
    is skewed. A constant g (a parabola, without the point at T = 2) was wrong by 0.01 nats of KL at 100 classes and by
    0.3 at 131,072; a linear g by 0.001 and 0.009, this one by 0.0006 and 0.002.
    """
    b = 1 / temperature
    flat, tail_mean = math.log(teacher.num_classes - teacher.ids.shape[-1]), wide(teacher.tail_mean)
    at_1 = (wide(teacher.tail_lse) - flat - tail_mean).clamp(min=SMALLEST_EXCESS).log()
    at_2 = (4 * (wide(teacher.tail_lse_at_2) - flat - tail_mean / 2)).clamp(min=SMALLEST_EXCESS).log()
    return flat + tail_mean * b + torch.exp((2 * b - 1) * at_1 + (2 - 2 * b) * at_2) * b**2


def _sampled(student: Tensor, target: SampledTarget, temperature: float | Tensor, mask: Tensor | None = None) -> Tensor:
    assert isinstance(temperature, Tensor) or temperature == 1, "sampled targets are of T = 1; the spec is refused"
    return soft_targets_sampled(student, target, mask)


SOFT_TARGETS = Loss(
    functions={DenseTarget: of_logits(soft_targets), TopKTarget: soft_targets_topk, SampledTarget: _sampled},
    settings={"temperature": TEMPERATURE, "standardize": STANDARDIZE},
    dense_only=("standardize",),
)
