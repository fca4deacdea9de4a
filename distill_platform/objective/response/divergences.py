"""Other divergences between the teacher's softened distribution and the student's.

Each is a function of log-probabilities `[…, n]` -> nats `[…]`; `compared` makes it a loss over all C classes, or over
the K + 1 buckets of a target of the K largest. A divergence over buckets is never above that over all classes, and is
0 where student and teacher agree. From samples of the teacher only forward KL has an unbiased estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from distill_platform.cache import DenseTarget, TopKTarget
from distill_platform.objective.loss import Loss
from distill_platform.objective.response.positions import mean
from distill_platform.objective.response.soft_targets import STANDARDIZE, kl, log_buckets, log_softened
from distill_platform.tasks.setting import TEMPERATURE, Setting


def reverse_kl(log_teacher: Tensor, log_student: Tensor) -> Tensor:
    """KL(student || teacher): pulls the student to some of the teacher's modes, where forward KL has it cover all.

    Gu et al. 2024, arXiv:2306.08543, section 2.1.
    """
    return kl(log_student, log_teacher)


def jensen_shannon(log_teacher: Tensor, log_student: Tensor, beta: float | Tensor) -> Tensor:
    """beta KL(teacher || M) + (1 - beta) KL(student || M) with M = beta teacher + (1 - beta) student.

    Over beta it approaches KL(teacher || student) as beta goes to 0; over 1 - beta, KL(student || teacher) as it goes
    to 1. At 0 and 1 themselves it is 0, which is why these are other losses.

    Agarwal et al. 2024, arXiv:2306.13649, equation 1.
    """
    log_mixture = _log_mixture(log_teacher, log_student, beta)
    return beta * kl(log_teacher, log_mixture) + (1 - beta) * kl(log_student, log_mixture)


def skewed_kl(log_teacher: Tensor, log_student: Tensor, alpha: float | Tensor) -> Tensor:
    """KL(teacher || alpha teacher + (1 - alpha) student): at most -log(alpha) nats; KL(teacher || student) at alpha 0.

    Ko et al. 2024, arXiv:2402.03898, section 3.1.
    """
    return kl(log_teacher, _log_mixture(log_teacher, log_student, alpha))


def skewed_reverse_kl(log_teacher: Tensor, log_student: Tensor, alpha: float | Tensor) -> Tensor:
    """KL(student || alpha student + (1 - alpha) teacher): at most -log(alpha) nats; KL(student || teacher) at alpha 0.

    Ko et al. 2024, arXiv:2402.03898, section 3.1.
    """
    return kl(log_student, _log_mixture(log_student, log_teacher, alpha))


def compared(divergence: Callable[..., Tensor], **settings: Setting) -> Loss:
    """A divergence as a loss: at a temperature, mean over the counted positions, times T^2 as for soft targets."""

    def of_all(
        student: Tensor,
        target: DenseTarget,
        temperature: float | Tensor,
        mask: Tensor | None = None,
        standardize: bool = False,
        **given: Any,
    ) -> Tensor:
        log_student = log_softened(student, temperature, mask, standardize)
        log_teacher = log_softened(target.logits, temperature, mask, standardize)
        return mean(divergence(log_teacher, log_student, **given), mask) * temperature**2

    def of_buckets(
        student: Tensor,
        target: TopKTarget,
        temperature: float | Tensor,
        mask: Tensor | None = None,
        **given: Any,
    ) -> Tensor:
        log_student, log_teacher = log_buckets(student, target, temperature, mask)
        return mean(divergence(log_teacher, log_student, **given), mask) * temperature**2

    return Loss(
        functions={DenseTarget: of_all, TopKTarget: of_buckets},
        settings={"temperature": TEMPERATURE, **settings, "standardize": STANDARDIZE},
        dense_only=("standardize",),
    )


def _log_mixture(log_p: Tensor, log_q: Tensor, share: float | Tensor) -> Tensor:
    """Log of share p + (1 - share) q."""
    return torch.logaddexp(log_p + _log(share), log_q + _log(1 - share))


def _log(share: float | Tensor) -> float | Tensor:
    if isinstance(share, Tensor):
        return share.log()
    return math.log(share) if share > 0 else -math.inf


SKEW = Setting(0.1, low=0, high=0.99)
"""At 1 the loss is 0 for every student, and near it nearly so."""

REVERSE_KL = compared(reverse_kl)
JENSEN_SHANNON = compared(jensen_shannon, beta=Setting(0.5, low=0.01, high=0.99))
SKEWED_KL = compared(skewed_kl, alpha=SKEW)
SKEWED_REVERSE_KL = compared(skewed_reverse_kl, alpha=SKEW)
