"""The loss and the figures of tasks whose labels are one of C, of an example or of each of its tokens.

Axes: B examples, T tokens, C classes or tokens of the vocabulary. What is UNLABELLED counts nowhere.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distill_platform.models import Outputs
from distill_platform.tasks.task import UNLABELLED, Sums


def cross_entropy(
    outputs: Outputs, labels: Tensor, weight: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of logits `[B, C]` or `[B, T, C]` with labels `[B]` or `[B, T]`, in nats, computed in fp32.

    The mean over all that is labelled, in one sum over the batch: a token counts alike in a long and in a short text.
    `weight` `[B]` scales each example's part of that sum.
    """
    logits = outputs["logits"].values.float()
    if weight is None:
        total = F.cross_entropy(
            *_flat(logits, labels), ignore_index=UNLABELLED, label_smoothing=label_smoothing, reduction="sum"
        )
    else:
        each = F.cross_entropy(
            *_flat(logits, labels), ignore_index=UNLABELLED, label_smoothing=label_smoothing, reduction="none"
        )
        total = (each.view(len(labels), -1) * weight[:, None]).sum()
    return total / (labels != UNLABELLED).sum().clamp(min=1)


def accuracy_and_loss(outputs: Outputs, labels: Tensor) -> Sums:
    """Share of right classes, and mean cross-entropy in nats."""
    logits, labels = _flat(outputs["logits"].values.double(), labels)
    counted = labels != UNLABELLED
    num_counted = float(counted.sum())
    right = ((logits.argmax(-1) == labels) & counted).sum()
    loss = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
    return {"accuracy": (float(right), num_counted), "loss": (float(loss), num_counted)}


def _flat(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return logits.flatten(0, -2), labels.flatten()
