"""Optimisers, schedules and number formats by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda groups, lr, momentum: torch.optim.SGD(
        groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True
    ),
    "adam": lambda groups, lr, momentum: torch.optim.Adam(groups, lr=lr, betas=(momentum, 0.999), fused=True),
    "adamw": lambda groups, lr, momentum: torch.optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=True),
}

SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "step": lambda done: 0.1 ** (int(done >= 0.5) + int(done >= 0.75)),
}
"""Share of the steps after warm-up that are done, 0 to 1 -> factor of the learning rate."""


PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Arithmetic of a forward pass -> what torch.autocast is told; None: it is left out."""


def make_optimizer(
    name: str, parts: Sequence[Mapping[str, Any]], lr: float, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """An optimiser over parts, each `params` and `lr_factor`, which its groups keep for whoever sets their rates.

    Weight decay spares biases and norms (parameters of one axis).
    """
    groups = []
    for part in parts:
        matrices = [parameter for parameter in part["params"] if parameter.ndim > 1]
        vectors = [parameter for parameter in part["params"] if parameter.ndim <= 1]
        for parameters, decay in ((matrices, weight_decay), (vectors, 0.0)):
            groups.append({"params": parameters, "weight_decay": decay, "lr_factor": part["lr_factor"]})
    return OPTIMIZERS[name]([group for group in groups if group["params"]], lr, momentum)


def lr_factor(schedule: str, step: int, num_steps: int, warmup_fraction: float) -> float:
    """Factor of the learning rate at `step` of `num_steps`: linear warm-up, then the schedule. A function of the step
    alone, so a resumed run needs no schedule state."""
    warmup = int(warmup_fraction * num_steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return SCHEDULES[schedule]((step - warmup) / max(1, num_steps - warmup))
