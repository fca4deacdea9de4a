"""Which positions of two layers are held against each other, and the mean over those that count.

Axes: B examples, T tokens, D channels, H and W of a map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_platform.errors import ModelError
from distill_platform.models.capture import positions_of


def wide(values: Tensor) -> Tensor:
    """In fp32, or in their own type if it is wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def mean_over(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of `[B, T, …]` over the tokens that count by a mask `[B, T, …]`, in one sum over the batch (None: all)."""
    if mask is None:
        return values.mean()
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def same_tokens(
    student: Tensor, teacher: Tensor, mask: Tensor | None, axes: tuple[int, ...] = (1,)
) -> tuple[Tensor, Tensor | None]:
    """The teacher's values cut to the student's tokens, on these axes, and the mask `[B, T]` of the student's layer.

    mask: of the student's inputs. A student's batch may be cut to its longest sequence, where a cache keeps all
    positions; what is cut is padding.

    Raises ModelError where tokens do not correspond: without a mask and of other numbers, or the student has more.
    """
    num = student.shape[axes[0]]
    own = positions_of(num, mask) if mask is not None else None
    if mask is not None and own is None:
        raise ModelError(
            f"a layer has {num} positions where inputs have {mask.shape[1]} tokens, so it cannot be told which of them "
            "are padding; name a layer with one position for each token, or a loss that takes pooled layers"
        )
    others = teacher.shape[axes[0]]
    if others != num and (own is None or others < num):
        raise ModelError(
            f"layers of {num} tokens of the student and {others} of the teacher do not correspond; name layers of the "
            "same tokens, or a loss that takes pooled layers"
        )
    for axis in axes:
        teacher = teacher.narrow(axis, 0, num)
    return teacher, own


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Maps `[B, D, H, W]`, each averaged over areas down to the smaller height and the smaller width of both."""
    size = (min(student.shape[2], teacher.shape[2]), min(student.shape[3], teacher.shape[3]))
    return _of_size(student, size), _of_size(teacher, size)


def _of_size(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return maps if maps.shape[2:] == size else F.adaptive_avg_pool2d(maps, size)
