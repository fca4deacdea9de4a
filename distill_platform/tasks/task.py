"""The shape of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_platform.data.schema import UNLABELLED as UNLABELLED
from distill_platform.data.schema import Schema
from distill_platform.models import Outputs, inference_batch_size
from distill_platform.tasks.setting import Setting

LOGITS_HELD = 1 << 24
"""Logits of tokens held at once outside of training: 128 MiB in float64."""

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


def rows_per_pass(task: Task, schema: Schema, device: torch.device) -> int:
    """Inputs per forward pass without gradients: fewer where the logits of their tokens would be too many to hold."""
    rows = inference_batch_size(device)
    if not task.per_token:
        return rows
    return max(1, min(rows, LOGITS_HELD // (schema.input.shape[0] * len(schema.class_names))))
