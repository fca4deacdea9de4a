"""Hidden states of a transformer student drawn to those of its teacher, token by token.

Jiao et al. 2020, TinyBERT, arXiv:1909.10351, eq. 8; Sanh et al. 2019, DistilBERT, arXiv:1910.01108, section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from distill_platform.errors import ModelError
from distill_platform.objective.features.feature import FeatureLoss, Fit, Pair
from distill_platform.objective.features.positions import mean_over, same_tokens, wide
from distill_platform.tasks.setting import Setting


def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """Squared difference of hidden states, mean over channels and over the tokens that count.

    student, teacher: `[B, T, D]` or `[B, D]`; mask `[B, T]` (None: all).

    Jiao et al. 2020, arXiv:1909.10351, eq. 8.
    """
    return mean_over(((wide(student) - wide(teacher)) ** 2).mean(-1), mask)


def hidden_cosine(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """1 - the cosine between hidden states, mean over the tokens that count: 0 for one direction, 2 for opposite ones.

    student, teacher: `[B, T, D]` or `[B, D]`; mask `[B, T]` (None: all).

    Sanh et al. 2019, arXiv:1910.01108, section 3.
    """
    return mean_over(1 - F.cosine_similarity(wide(student), wide(teacher), dim=-1), mask)


MATCHES = {"mse": hidden_mse, "cosine": hidden_cosine}


class HiddenStates(nn.Module):
    """Sequences or vectors; a learned linear map, without bias as in eq. 8, where widths differ."""

    def __init__(self, fit: Fit) -> None:
        super().__init__()
        if fit.is_attention or len(fit.student) != len(fit.teacher) or len(fit.student) not in (1, 2):
            raise ModelError(
                f"cannot compare {list(fit.student)} with {list(fit.teacher)}, wanted two sequences [T, D] or two "
                "vectors [D]; maps go to the loss hint, attention weights to attention"
            )
        self.of_tokens = len(fit.student) == 2
        widths = fit.student[-1], fit.teacher[-1]
        self.map: nn.Module = nn.Linear(*widths, bias=False) if widths[0] != widths[1] else nn.Identity()

    def forward(self, pair: Pair, settings: Mapping[str, Any]) -> Tensor:
        teacher, mask = pair.teacher, None
        if self.of_tokens:
            teacher, mask = same_tokens(pair.student, teacher, pair.mask)
        return MATCHES[settings["match"]](self.map(pair.student), teacher, mask)


hidden_states = FeatureLoss(
    build=lambda fit, settings: HiddenStates(fit), settings={"match": Setting("mse", choices=tuple(MATCHES))}
)
