"""The next token at every position: output "logits" `[B, T, V]`, labels `[B, T]`, UNLABELLED where there is none."""

from __future__ import annotations

from distill_platform.tasks.cross_entropy import accuracy_and_loss, cross_entropy
from distill_platform.tasks.setting import LABEL_SMOOTHING
from distill_platform.tasks.task import Task

language_modelling = Task(
    name="language_modelling",
    output="logits",
    kinds=("tokens",),
    per_token=True,
    loss=cross_entropy,
    settings={"label_smoothing": LABEL_SMOOTHING},
    metrics=accuracy_and_loss,
)
