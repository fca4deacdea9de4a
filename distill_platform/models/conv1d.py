"""Convolutions over time, for sound: log-mel frames in, one class out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from distill_platform.errors import ModelError
from distill_platform.models.pooling import masked_mean


def conv1d(
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    channels: Sequence[int] = (64, 64, 64),
    kernel: int = 5,
    stride: int = 2,
    dropout: float = 0.0,
) -> nn.Module:
    """Per entry of `channels` a convolution over `kernel` frames, layer norm and ReLU; all but the first take every
    `stride`-th frame. Then the mean over frames and a linear layer. `[B, mels, frames]`, mask -> `[B, C]`.

    A frame of padding is what lies beyond the end: zeros before each convolution, and no part of the mean. The norm is
    over a frame's channels, because a batch norm's statistics would depend on how much padding a batch has.
    """
    if len(input_shape) != 2:
        raise ModelError(f"conv1d takes frames [bands, frames], got inputs of shape {list(input_shape)}")
    if kernel < 1 or kernel % 2 == 0 or stride < 1 or not channels:
        raise ModelError(
            f"conv1d got kernel {kernel}, stride {stride}, channels {list(channels)}; wanted an odd kernel, a stride "
            "of at least 1, and one entry of channels or more"
        )
    return _Conv1d(input_shape[0], num_classes, channels, kernel, stride, dropout)


class _Conv1d(nn.Module):
    def __init__(
        self, num_bands: int, num_classes: int, channels: Sequence[int], kernel: int, stride: int, dropout: float
    ) -> None:
        super().__init__()
        widths = [num_bands, *channels]
        self.layers = nn.ModuleList(
            _Layer(widths[index], widths[index + 1], kernel, stride if index else 1) for index in range(len(channels))
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        for layer in self.layers:
            frames = layer(frames * mask[:, None].to(frames.dtype))
            mask = mask[:, :: layer.stride]
        logits: Tensor = self.head(self.dropout(masked_mean(frames.transpose(1, 2), mask)))
        return logits


class _Layer(nn.Module):
    """`[B, channels, frames]` -> `[B, width, frames / stride]`."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = nn.Conv1d(channels, width, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.LayerNorm(width)
        self.activation = nn.ReLU()

    def forward(self, frames: Tensor) -> Tensor:
        normed = self.norm(self.convolution(frames).transpose(1, 2)).transpose(1, 2)
        activated: Tensor = self.activation(normed)
        return activated
