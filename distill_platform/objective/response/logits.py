"""Logits compared as they are, without a softmax."""

from __future__ import annotations

from torch import Tensor

from distill_platform.cache import DenseTarget
from distill_platform.objective.loss import Loss, of_logits
from distill_platform.objective.response.positions import covered, mean, wide
from distill_platform.tasks.setting import Setting


def logit_mse(student: Tensor, teacher: Tensor, mask: Tensor | None = None, centered: bool = False) -> Tensor:
    """Squared difference of raw logits `[…, C]`, mean over the classes and over the counted positions.

    The paper's is the sum over the classes, C times as much. Where `centered`, each position's logits are compared
    after their own mean was taken off, as a softmax does not see it: that is twice the limit of `soft_targets` as T
    grows without bound.

    Kim et al. 2021, arXiv:2105.08919, section 3, L_MSE.
    """
    difference = wide(covered(student, mask)) - wide(covered(teacher, mask))
    if centered:
        difference = difference - difference.mean(-1, keepdim=True)
    return mean((difference**2).mean(-1), mask)


LOGIT_MSE = Loss(
    functions={DenseTarget: of_logits(logit_mse)},
    settings={"centered": Setting(False)},
    unsoftened=True,
)
