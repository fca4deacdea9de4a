"""The shape of a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from distill_platform.models import Outputs


@dataclass(frozen=True)
class Task:
    """What is learned from labels and how it is measured while training.

    loss:     (outputs, labels, weight=None, **settings) -> scalar in nats: the mean over the batch of each example's
              loss times its weight `[B]` (None: 1). Of a mixed example it is called for either label, with its share
    settings: what the spec may set of the loss, beside its weight, with defaults
    metrics:  (outputs, labels) of a whole validation split -> figures; "loss" among them
    """

    name: str
    output: str
    loss: Callable[..., Tensor]
    settings: dict[str, float]
    metrics: Callable[[Outputs, Tensor], dict[str, float]]
