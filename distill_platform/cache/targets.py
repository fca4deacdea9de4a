"""What a loss is handed about the teacher: decoded, and aware of what it holds.

A loss names the target types that it accepts (`objective.LOSSES`); a codec names the type that it decodes to. Where the
two do not meet, the spec is refused before anything runs.

Axes: C classes, K kept; `…` are a row's units. All are on one device.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """Base of all targets."""

    def to(self, device: torch.device) -> Self:
        """The same on another device."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class DenseTarget(Target):
    """Raw logits of every class, `[…, C]` fp32, T = 1: exact at every temperature up to the stored precision."""

    logits: Tensor


@dataclass(frozen=True)
class TopKTarget(Target):
    """The K largest logits of C, and a summary of the others: exact at T = 1 and T = 2, close at all T above 1.

    ids:           `[…, K]` int64, the classes, by descending logit.
    logits:        `[…, K]` fp32, relative to the largest: the first is 0.
    tail_lse:      `[…]` fp32, log-sum-exp of the other C - K logits, relative to the largest.
    tail_lse_at_2: `[…]` fp32, log-sum-exp of half of each of these: at T = 2.
    tail_mean:     `[…]` fp32, their mean, relative to the largest.
    """

    ids: Tensor
    logits: Tensor
    tail_lse: Tensor
    tail_lse_at_2: Tensor
    tail_mean: Tensor
    num_classes: int


@dataclass(frozen=True)
class SampledTarget(Target):
    """An unbiased estimate of the teacher's distribution at T = 1, and at no other temperature.

    ids: `[…, K]` int64 classes. weights: `[…, K]` fp32, their sum 1; a weight may be 0. E[sum of the weights of class
    i] = p_i.
    """

    ids: Tensor
    weights: Tensor
    num_classes: int
