"""How a model is trained, as the plain values that a Trainer takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrainSettings:
    """How to train; the fields of the spec's `train`, all resolved."""

    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    weight_decay: float
    momentum: float
    schedule: str
    warmup_fraction: float
    clip_norm: float | None
    patience_epochs: int | None
    precision: str
    seed: int
    order: str = "global"
    window_examples: int = 1 << 16
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    worst_group: Mapping[str, float] | None = None
