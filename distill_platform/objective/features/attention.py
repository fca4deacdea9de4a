"""Where a network looks: spatial attention of convolutional maps, and attention weights of transformers.

Zagoruyko and Komodakis 2017, arXiv:1612.03928, eq. 2; Jiao et al. 2020, TinyBERT, arXiv:1909.10351, eq. 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from distill_platform.errors import ModelError
from distill_platform.objective.features.feature import FeatureLoss, Fit, Pair
from distill_platform.objective.features.positions import mean_over, same_size, same_tokens, wide


def spatial_attention(student: Tensor, teacher: Tensor) -> Tensor:
    """Half the squared distance of two attention maps of length 1, mean over the batch: 0 where both look alike to 1.

    student `[B, D, H, W]`, teacher `[B, E, H', W']`: the map is the sum over channels of the squared values, averaged
    over areas down to the smaller height and width of both, and divided by its own length. Channels may differ.

    Zagoruyko and Komodakis 2017, arXiv:1612.03928, eq. 2 with p = 2. The distance is squared, as in the authors' code:
    it has no gradient of its own where both agree.
    """
    maps = [(wide(values) ** 2).sum(1, keepdim=True) for values in (student, teacher)]
    own, wanted = (F.normalize(each.flatten(1), dim=-1) for each in same_size(*maps))
    return ((own - wanted) ** 2).sum(-1).mean() / 2


def attention_weights(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Squared difference of attention weights, mean over heads, and over queries and keys that count.

    student, teacher: `[B, heads, T, T]`, or `[B, T, T]` of which heads are averaged already; where the numbers of heads
    differ, both are averaged. mask `[B, T]`: which tokens count (None: all).

    Jiao et al. 2020, arXiv:1909.10351, eq. 7. There it is the scores before the softmax; here the weights, since those
    are what layers give.
    """
    student, teacher = wide(student), wide(teacher)
    if student.shape[1:-2] != teacher.shape[1:-2]:
        student, teacher = _averaged(student), _averaged(teacher)
    squared = (student - teacher) ** 2
    if squared.ndim == 4:
        squared = squared.mean(1)
    return mean_over(squared, mask[:, :, None] & mask[:, None, :] if mask is not None else None)


class Attention(nn.Module):
    """Maps `[B, D, H, W]`, or weights of layers named with `:attention`; nothing is learned."""

    def __init__(self, fit: Fit) -> None:
        super().__init__()
        self.of_weights = fit.is_attention
        if not fit.is_attention and {len(fit.student), len(fit.teacher)} != {3}:
            raise ModelError(
                f"cannot compare {list(fit.student)} with {list(fit.teacher)}, wanted two maps [D, H, W], or layers "
                "that give attention weights, named with :attention"
            )

    def forward(self, pair: Pair, settings: Mapping[str, Any]) -> Tensor:
        if not self.of_weights:
            return spatial_attention(pair.student, pair.teacher)
        teacher, mask = same_tokens(pair.student, pair.teacher, pair.mask, axes=(-1, -2))
        return attention_weights(pair.student, teacher, mask)


def _averaged(weights: Tensor) -> Tensor:
    return weights.mean(1) if weights.ndim == 4 else weights


attention = FeatureLoss(build=lambda fit, settings: Attention(fit), settings={})
