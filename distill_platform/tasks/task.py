"""The shape of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from distill_platform.models import Outputs
from distill_platform.tasks.setting import Setting

UNLABELLED = -1
"""The label of what has none: an example of a transfer set, a token of padding. It counts in no task loss or metric."""

Sums = dict[str, tuple[float, float]]
"""Name of a figure -> its sum over what counts, and how much counts: figures of parts add up to those of the whole."""


@dataclass(frozen=True)
class Task:
    """What is learned from labels and how it is measured while training.

    output:    the name of the output that labels, and a teacher's logits, are of
    kinds:     of inputs that it can be done on (`InputSpec.kind`)
    per_token: whether labels are of single tokens `[B, T]`, logits `[B, T, C]`; else `[B]` and `[B, C]`
    loss:      (outputs, labels, weight=None, **settings) -> scalar in nats: the mean, over what is labelled, of its
               loss times its example's weight `[B]` (None: 1). Of a mixed example it is called for either label, with
               that label's share
    settings:  what the spec may set of the loss, beside its weight
    metrics:   (outputs, labels) of a part of a validation split -> sums; "loss" and "accuracy" among them
    """

    name: str
    output: str
    kinds: tuple[str, ...]
    per_token: bool
    loss: Callable[..., Tensor]
    settings: Mapping[str, Setting]
    metrics: Callable[[Outputs, Tensor], Sums]
