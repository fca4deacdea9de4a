"""A layer of the student made to predict one of the teacher through a learned regressor.

Romero et al. 2015, FitNets, arXiv:1412.6550, eq. 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from distill_platform.errors import ModelError
from distill_platform.objective.features.feature import FeatureLoss, Fit, Pair
from distill_platform.objective.features.positions import mean_over, same_size, same_tokens, wide


def half_squared_distance(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Half the squared difference, mean over all values that count; zero where both agree.

    student, teacher: `[B, D]`, `[B, T, D]` or `[B, D, H, W]` alike; mask `[B, T]`: which tokens count (None: all).

    Romero et al. 2015, arXiv:1412.6550, eq. 3, where the squares are summed: the mean over channels and positions keeps
    a weight's meaning from layer to layer.
    """
    squared = (wide(student) - wide(teacher)) ** 2
    return mean_over(squared.mean(-1) if mask is not None else squared, mask) / 2


class Hint(nn.Module):
    """The regressor: a 1x1 convolution for maps `[B, D, H, W]`, else a linear map of `[B, D]` or `[B, T, D]`.

    Maps of other sizes are averaged down to the smaller of both; the regressor acts on single positions, so it makes no
    difference which of the two comes first.
    """

    def __init__(self, fit: Fit) -> None:
        super().__init__()
        if fit.is_attention or len(fit.student) != len(fit.teacher) or len(fit.student) not in (1, 2, 3):
            raise ModelError(
                f"cannot compare {list(fit.student)} with {list(fit.teacher)}, wanted two vectors [D], two sequences "
                "[T, D] or two maps [D, H, W]; attention weights go to the loss attention"
            )
        self.of_maps = len(fit.student) == 3
        self.of_tokens = len(fit.student) == 2
        self.regressor: nn.Module = (
            nn.Conv2d(fit.student[0], fit.teacher[0], 1)
            if self.of_maps
            else nn.Linear(fit.student[-1], fit.teacher[-1])
        )

    def forward(self, pair: Pair, settings: Mapping[str, Any]) -> Tensor:
        student, teacher, mask = pair.student, pair.teacher, None
        if self.of_maps:
            student, teacher = same_size(student, teacher)
        elif self.of_tokens:
            teacher, mask = same_tokens(student, teacher, pair.mask)
        return half_squared_distance(self.regressor(student), teacher, mask)


hint = FeatureLoss(build=lambda fit, settings: Hint(fit), settings={})
