"""What a feature loss is, and what it is handed: a layer of the student beside one of the teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from distill_platform.tasks.setting import Setting


@dataclass(frozen=True)
class Fit:
    """What a module that compares two layers is made for.

    student, teacher: shapes of what the layers give of one example, pooled if the loss says so.
    is_attention:     whether both are attention weights.
    num_examples:     of the train split.
    seed:             of whatever it draws while training.
    """

    student: tuple[int, ...]
    teacher: tuple[int, ...]
    is_attention: bool = False
    num_examples: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Pair:
    """A batch of two layers, float32 on one device.

    mask:  `[B, T]`, which tokens count (None: all).
    index: `[B]`, rows of the train split.
    step:  of the optimiser.
    """

    student: Tensor
    teacher: Tensor
    mask: Tensor | None = None
    index: Tensor | None = None
    step: int = 0


@dataclass(frozen=True)
class FeatureLoss:
    """A loss over pairs of layers; the values of several pairs add up.

    build:    (what it is made for, settings) -> module; called with a Pair and settings it gives a scalar. Its
              parameters are trained with the student's and never shipped. Raises ModelError for layers that it cannot
              compare.
    settings: what it may be set to, by name.
    mode:     "pooled" or "whole": what it needs of a layer, and so what a cache has to keep.
    """

    build: Callable[[Fit, Mapping[str, Any]], nn.Module]
    settings: Mapping[str, Setting]
    mode: str = "whole"
    takes_layers: ClassVar[bool] = True
