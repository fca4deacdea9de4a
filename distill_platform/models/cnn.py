"""A plain convolutional network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from distill_platform.errors import ModelError


def cnn(
    input_shape: tuple[int, ...], num_classes: int, *, channels: Sequence[int] = (32, 64), dropout: float = 0.0
) -> nn.Module:
    """One 3x3 convolution, batch norm, ReLU and 2x2 pooling per entry of `channels`, then the mean over pixels and a
    linear layer. `[B, channels, H, W]` -> `[B, C]`. Pooling stops once a side is down to one pixel.
    """
    if len(input_shape) != 3:
        raise ModelError(
            f"cnn takes images [channels, height, width], got inputs of shape {list(input_shape)}; use mlp"
        )
    depth, height, width = input_shape
    layers: list[nn.Module] = []
    for units in channels:
        layers += [nn.Conv2d(depth, units, 3, padding=1, bias=False), nn.BatchNorm2d(units), nn.ReLU()]
        if min(height, width) > 1:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        depth = units
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if dropout:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(depth, num_classes))
