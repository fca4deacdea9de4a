"""How examples lie to each other: distances of pairs, and angles of triplets.

Park et al. 2019, arXiv:1904.05068, eq. 4 to 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_platform.errors import ModelError
from distill_platform.objective.features.feature import FeatureLoss, Fit, Pair
from distill_platform.objective.features.positions import wide
from distill_platform.tasks.setting import Setting

COINCIDENT = 1e-6
"""Squared distances below this share of their mean are rounding: such examples count as one point, in no direction."""


def distance_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the distances of all pairs of different examples, each over their mean; mean over the pairs.

    student `[B, D]`, teacher `[B, E]`. Zero where one is the other scaled, moved or turned.

    Park et al. 2019, arXiv:1904.05068, eq. 4 to 6 with delta = 1; the mean instead of the sum.
    """
    own, wanted = (_relative(_distances(wide(values))) for values in (student, teacher))
    return _mean(F.huber_loss(own, wanted, reduction="none"), _different(len(own), 2, own.device))


def angle_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss of the cosines of the angles of all triplets of different examples; mean over the triplets.

    student `[B, D]`, teacher `[B, E]`. Zero where one is the other scaled, moved or turned. It takes memory for B^3
    numbers.

    Park et al. 2019, arXiv:1904.05068, eq. 7 and 8 with delta = 1; the mean instead of the sum.
    """
    own, wanted = (_cosines(wide(values)) for values in (student, teacher))
    return _mean(F.huber_loss(own, wanted, reduction="none"), _different(len(own), 3, own.device))


class Relations(nn.Module):
    """The weighted sum of both relations, of vectors; nothing is learned."""

    def __init__(self, fit: Fit) -> None:
        super().__init__()
        if fit.is_attention:
            raise ModelError("compares vectors, not attention weights; name layers without :attention")

    def forward(self, pair: Pair, settings: Mapping[str, Any]) -> Tensor:
        student, teacher = pair.student, pair.teacher
        distance, angle = distance_relation(student, teacher), angle_relation(student, teacher)
        value: Tensor = settings["distance"] * distance + settings["angle"] * angle
        return value


def _squared_distances(points_BD: Tensor) -> Tensor:
    """`[B, B]`, exact zeros for coincident points. Centred first: what is far from the origin would cancel."""
    centred = points_BD - points_BD.mean(0)
    products = centred @ centred.T
    squares = products.diagonal()
    return squares[:, None] + squares[None, :] - 2 * products


def _distances(points_BD: Tensor) -> Tensor:
    """`[B, B]`; the root has no gradient at zero, so it is not taken there."""
    squared = _squared_distances(points_BD)
    apart = squared > COINCIDENT * squared.mean()
    return torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)


def _relative(distances_BB: Tensor) -> Tensor:
    """Over their mean over pairs of different examples, eq. 5."""
    mean = _mean(distances_BB, _different(len(distances_BB), 2, distances_BB.device))
    return distances_BB / torch.where(mean > 0, mean, 1)


def _cosines(points_BD: Tensor) -> Tensor:
    """`[j, i, k]`: the cosine of the angle at j between i and k, 0 where j coincides with one of them.

    From the products of the points alone, since directions would take B^2 vectors.
    """
    centred = points_BD - points_BD.mean(0)
    products = centred @ centred.T
    own = products.diagonal()
    between = products[None] - products[:, :, None] - products[:, None, :] + own[:, None, None]
    distances = _distances(points_BD)
    apart = distances > 0
    inverse = torch.where(apart, 1 / torch.where(apart, distances, 1), 0)
    return between * inverse[:, :, None] * inverse[:, None, :]


def _different(num: int, axes: int, device: torch.device) -> Tensor:
    """Which pairs `[B, B]` or triplets `[B, B, B]` are of different examples."""
    other = ~torch.eye(num, dtype=torch.bool, device=device)
    return other if axes == 2 else other[:, :, None] & other[:, None, :] & other[None]


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return torch.where(counted, values, 0).sum() / counted.sum().clamp(min=1)


rkd = FeatureLoss(
    build=lambda fit, settings: Relations(fit),
    settings={"distance": Setting(1.0, low=0), "angle": Setting(2.0, low=0)},
    mode="pooled",
)
