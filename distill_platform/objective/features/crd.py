"""A student's embedding of an example told from those of other examples by the teacher's, and the other way about.

Tian et al. 2020, arXiv:1910.10699, eq. 17 to 19.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_platform.data.order import step_seed
from distill_platform.errors import ModelError
from distill_platform.objective.features.feature import FeatureLoss, Fit, Pair
from distill_platform.objective.features.positions import wide
from distill_platform.tasks.setting import Setting


def critic_loss(
    positive: Tensor,
    negative: Tensor,
    counted: Tensor,
    num_examples: int,
    temperature: float | Tensor,
    log_partition: float | Tensor = 0.0,
) -> Tensor:
    """-log h of an example's own pair, and -log(1 - h) of N pairs with others; mean over the batch, in nats.

    positive `[B]`: inner product of the two embeddings of an example. negative `[B, N]`: of an embedding with those of
    other examples; counted `[B, N]`: which of them are others. num_examples: M of the train split.
    h = exp(s / temperature) / (exp(s / temperature) + Z N / M). It falls to 0 for a perfect critic.

    Tian et al. 2020, arXiv:1910.10699, eq. 17 and 19. Z = exp(log_partition) is 1 there; the authors' code divides by a
    constant, as Wu et al. 2018, arXiv:1805.01978, section 3.2: else embeddings of length 1 never come near h = 1/M.
    """
    threshold = math.log(negative.shape[1] / num_examples) + log_partition
    own = F.softplus(threshold - wide(positive) / temperature)
    others = torch.where(counted, F.softplus(wide(negative) / temperature - threshold), 0).sum(1)
    return (own + others * (negative.shape[1] / counted.sum(1).clamp(min=1))).mean()


class Contrast(nn.Module):
    """Both layers projected to unit vectors, and a bank of what was last said of each example of the train split.

    An example's own pair is of this step; its negatives come from the bank, where a row moves towards the newest
    embedding by `momentum`. The batch shares its negatives, drawn by (seed, step), so that they cost one product of
    matrices instead of a gather of B * N rows.
    """

    bank: Tensor
    log_partition: Tensor

    def __init__(self, fit: Fit, feature_dim: int) -> None:
        super().__init__()
        if fit.is_attention:
            raise ModelError("compares vectors, not attention weights; name layers without :attention")
        self.seed = fit.seed
        self.student = nn.Linear(math.prod(fit.student), feature_dim)
        self.teacher = nn.Linear(math.prod(fit.teacher), feature_dim)
        self.register_buffer("bank", F.normalize(torch.randn(2, fit.num_examples, feature_dim), dim=-1))
        self.register_buffer("log_partition", torch.full((2,), math.nan))

    def forward(self, pair: Pair, settings: Mapping[str, Any]) -> Tensor:
        assert pair.index is not None, "the bank's rows are those of the train split"
        own = torch.stack(
            [
                F.normalize(self.student(pair.student.flatten(1)), dim=-1),
                F.normalize(self.teacher(pair.teacher.flatten(1)), dim=-1),
            ]
        )
        num_examples, temperature = self.bank.shape[1], settings["temperature"]
        index = pair.index.to(self.bank.device)
        drawn = self._draw(min(round(settings["num_negatives"]), num_examples), pair.step)
        counted = drawn != index[:, None]
        # the student's vectors against the teacher's bank, and the teacher's against the student's
        negative = own @ self.bank.index_select(1, drawn).flip(0).mT
        if bool(self.log_partition.isnan().any()):
            estimate = (negative.detach() / temperature).flatten(1).logsumexp(1) - math.log(negative[0].numel())
            self.log_partition.copy_(estimate + math.log(num_examples))
        positive = own.prod(0).sum(-1)
        value = torch.stack(
            [
                critic_loss(positive, negative[side], counted, num_examples, temperature, self.log_partition[side])
                for side in (0, 1)
            ]
        ).sum()
        self._remember(own.detach(), index, settings["momentum"])
        return value

    def _draw(self, num: int, step: int) -> Tensor:
        """So many rows of the bank, with replacement; all of them if there are no more."""
        if num == self.bank.shape[1]:
            return torch.arange(num, device=self.bank.device)
        generator = torch.Generator().manual_seed(step_seed(self.seed, "negatives", step))
        return torch.randint(self.bank.shape[1], (num,), generator=generator).to(self.bank.device)

    @torch.no_grad()
    def _remember(self, newest: Tensor, index: Tensor, momentum: float) -> None:
        before = self.bank.index_select(1, index)
        self.bank.index_copy_(1, index, F.normalize(momentum * before + (1 - momentum) * newest, dim=-1))


crd = FeatureLoss(
    build=lambda fit, settings: Contrast(fit, round(settings["feature_dim"])),
    settings={
        "feature_dim": Setting(128, low=1),
        "num_negatives": Setting(4096, low=1),
        "temperature": Setting(0.07, low=0, above=True),
        "momentum": Setting(0.5, low=0, high=1),
    },
    mode="pooled",
)
