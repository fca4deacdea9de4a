"""Which positions count: the axes before the classes are positions, and a mask over them says which are no padding.

A mask is of truth values, or of numbers >= 0: how much each position counts. What counts 0 reaches nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor


def wide(values: Tensor) -> Tensor:
    """In fp32, or in their own type if it is wider."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def covered(values: Tensor, mask: Tensor | None) -> Tensor:
    """Values `[…, n]` with zeros at positions that do not count: whatever stands there reaches no value or gradient."""
    return values if mask is None else torch.where(mask[..., None] != 0, values, 0)


def mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of values `[…]` over all positions that count, at once, each as much as it counts; 0 where none does."""
    if mask is None:
        return values.mean()
    counts = mask.to(values.dtype)
    total = counts.sum()
    return (torch.where(mask != 0, values, 0) * counts).sum() / torch.where(total > 0, total, 1)
