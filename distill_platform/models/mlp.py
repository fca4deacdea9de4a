"""Multi-layer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn


def mlp(
    input_shape: tuple[int, ...], num_classes: int, *, hidden: Sequence[int] = (64,), dropout: float = 0.0
) -> nn.Module:
    """Layers of `hidden` units with ReLU; an image is read as one long vector. `[B, *input_shape]` -> `[B, C]`."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(input_shape)
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = units
    return nn.Sequential(*layers, nn.Linear(width, num_classes))
