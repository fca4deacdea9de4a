"""Distillation losses as pure functions. Computed in log-space, in fp32 or in the inputs' own type if it is wider.

Axes: B batch, C classes. Settings may be numbers or tensors that broadcast; nothing branches on a tensor's value.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the positions that count."""
    if mask is None:
        return values.mean()
    counted = mask.to(values.dtype)
    return (values * counted).sum() / counted.sum().clamp(min=1)
