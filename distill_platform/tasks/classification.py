"""One class of several per input: output "logits" `[B, C]`, labels `[B]`, or UNLABELLED."""

from __future__ import annotations

from distill_platform.tasks.cross_entropy import accuracy_and_loss, cross_entropy
from distill_platform.tasks.setting import LABEL_SMOOTHING
from distill_platform.tasks.task import Task

classification = Task(
    name="classification",
    output="logits",
    kinds=("image", "features", "text", "audio"),
    per_token=False,
    loss=cross_entropy,
    settings={"label_smoothing": LABEL_SMOOTHING},
    metrics=accuracy_and_loss,
)
