"""One class of several per input: output "logits" `[B, C]`, labels `[B]`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distill_platform.models import Outputs
from distill_platform.tasks.task import Task


def cross_entropy(
    outputs: Outputs, labels: Tensor, weight: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy with the labels `[B]`, times `weight` `[B]`, mean over the batch, in nats, computed in fp32."""
    logits = outputs["logits"].values.float()
    if weight is None:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return (weight * F.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")).mean()


def accuracy_and_loss(outputs: Outputs, labels: Tensor) -> dict[str, float]:
    """Share of right classes, and mean cross-entropy in nats."""
    logits = outputs["logits"].values.float()
    return {
        "accuracy": (logits.argmax(-1) == labels).double().mean().item(),
        "loss": F.cross_entropy(logits.double(), labels).item(),
    }


classification = Task(
    name="classification",
    output="logits",
    loss=cross_entropy,
    settings={"label_smoothing": 0.0},
    metrics=accuracy_and_loss,
)
