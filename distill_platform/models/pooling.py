"""One vector of a sequence, from what counts of it."""

from __future__ import annotations

from torch import Tensor


def masked_mean(values_BTH: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean over the positions that count: `[B, T, H]`, `[B, T]` -> `[B, H]`; zeros where none counts."""
    counts = mask_BT[..., None].to(values_BTH.dtype)
    return (values_BTH * counts).sum(1) / counts.sum(1).clamp(min=1)
