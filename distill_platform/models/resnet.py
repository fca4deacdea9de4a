"""Residual networks for small images. He et al. 2016, arXiv:1512.03385, section 4.2."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from distill_platform.errors import ModelError


def resnet(input_shape: tuple[int, ...], num_classes: int, *, depth: int = 20, width: int = 16) -> nn.Module:
    """CIFAR-style ResNet-`depth` (6n + 2 layers: 8, 14, 20, 32, 44, 56, 110 …) with `width`, 2 and 4 times `width`
    channels in its three stages. `[B, channels, H, W]` -> `[B, C]`.
    """
    if len(input_shape) != 3:
        raise ModelError(f"resnet takes images [channels, height, width], got inputs of shape {list(input_shape)}")
    if depth < 8 or (depth - 2) % 6:
        raise ModelError(f"resnet depth is {depth}, wanted 6n + 2: 8, 14, 20, 26, 32, 44, 56, 110")
    return ResNet(input_shape[0], num_classes, blocks=(depth - 2) // 6, width=width)


class ResNet(nn.Module):
    """Three stages of blocks behind one convolution: `[B, channels, H, W]` -> `[B, C]`."""

    def __init__(self, channels: int, num_classes: int, blocks: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    ResidualBlock(_input_width(stage, block, width), width << stage, _stride(stage, block))
                    for block in range(blocks)
                )
            )
            for stage in range(3)
        )
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        for stage in self.stages:
            features = stage(features)
        return cast(Tensor, self.head(features.mean((2, 3))))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (the paper's option A)."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.stride, self.width, self.widen = stride, width_out, width_out - width_in
        self.body = nn.Sequential(
            nn.Conv2d(width_in, width_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width_out),
            nn.ReLU(),
            nn.Conv2d(width_out, width_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(width_out),
        )

    def forward(self, features: Tensor) -> Tensor:
        shortcut = features[:, :, :: self.stride, :: self.stride]
        shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.widen))
        return F.relu(self.body(features) + shortcut)


def _stride(stage: int, block: int) -> int:
    return 2 if stage > 0 and block == 0 else 1


def _input_width(stage: int, block: int, width: int) -> int:
    return width << (stage - 1) if stage > 0 and block == 0 else width << stage
