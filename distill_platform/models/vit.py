"""A small vision transformer. Dosovitskiy et al. 2021, arXiv:2010.11929, with the mean over patches in place of a class
token (Beyer et al. 2022, arXiv:2205.01580, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill_platform.errors import ModelError
from distill_platform.models.attention import INITIAL_STD, blocks


def vit(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    patch: int = 4,
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    mlp_factor: float = 4.0,
    dropout: float = 0.0,
) -> nn.Module:
    """Patches of `patch` x `patch` pixels, learned positions, `depth` blocks: `[B, channels, H, W]` -> `[B, C]`."""
    if len(input_shape) != 3:
        raise ModelError(f"vit takes images [channels, height, width], got inputs of shape {list(input_shape)}")
    channels, height, image_width = input_shape
    if patch < 1 or height % patch or image_width % patch:
        raise ModelError(f"vit patch is {patch}, wanted a divisor of the image's sides, {height} and {image_width}")
    num_patches = (height // patch) * (image_width // patch)
    stack = blocks(width, depth, heads, mlp_factor, dropout)
    return VisionTransformer(stack, nn.Conv2d(channels, width, patch, patch), num_patches, num_classes, dropout)


class VisionTransformer(nn.Module):
    """Blocks over patches: `[B, channels, H, W]` -> `[B, C]`."""

    def __init__(
        self, stack: nn.ModuleList, patches: nn.Conv2d, num_patches: int, num_classes: int, dropout: float
    ) -> None:
        super().__init__()
        width = patches.out_channels
        self.patches = patches
        self.positions = nn.Parameter(INITIAL_STD * torch.randn(num_patches, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = stack
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        values = self.dropout(self.patches(images).flatten(2).transpose(1, 2) + self.positions)
        for block in self.blocks:
            values = block(values)
        logits: Tensor = self.head(self.norm(values).mean(1))
        return logits
