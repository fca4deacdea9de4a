"""The literal dict of losses. To add one: a pure function in losses.py, a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from distill_platform.cache import DenseTarget, Target
from distill_platform.models import Output
from distill_platform.objective import losses


@dataclass(frozen=True)
class Loss:
    """function: (student output, target, **settings) -> scalar; settings: name -> default.

    accepts: the target types it can be computed from; every codec that decodes to one of them can carry it.
    """

    function: Callable[..., Tensor]
    accepts: tuple[type[Target], ...]
    settings: dict[str, float]


def _on_logits(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of (student logits, teacher logits, mask=…, **settings) as the function of a Loss."""

    def loss(output: Output, target: Target, **settings: float) -> Tensor:
        return function(output.values, cast(DenseTarget, target).logits, mask=output.mask, **settings)

    return loss


LOSSES: dict[str, Loss] = {
    "soft_targets": Loss(_on_logits(losses.soft_targets), accepts=(DenseTarget,), settings={"temperature": 4.0}),
}
