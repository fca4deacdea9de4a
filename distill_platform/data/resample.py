"""Moves of an image's pixels as one map from output to input, so that the pixels are sampled once however many moves.

Bit-exact everywhere: positions are fixed-point integers (16 fractional bits), weights are multiples of 1/128, and
pixels of 8 bits are blended in float32, which holds every such product without rounding.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

ONE = 1 << 16
STEPS_PER_DEGREE = 16
_TURN = 360 * STEPS_PER_DEGREE


@dataclass(frozen=True)
class Pose:
    """For each of B images: input position = linear @ output position + offset, about the image's centre.

    The linear part is in units of 1/ONE, the offset in half pixels / ONE (centres of even widths lie between pixels).
    """

    xx: Ints
    xy: Ints
    yx: Ints
    yy: Ints
    x: Ints
    y: Ints

    @classmethod
    def still(cls, count: int) -> Pose:
        """B images left as they are."""
        one, zero = np.full(count, ONE, np.int64), np.zeros(count, np.int64)
        return cls(one, zero, zero, one, zero, zero)

    def shifted(self, right: Ints, down: Ints) -> Pose:
        """Then moved by whole pixels [B]."""
        return replace(
            self,
            x=self.x - 2 * (self.xx * right + self.xy * down),
            y=self.y - 2 * (self.yx * right + self.yy * down),
        )

    def mirrored(self, which: NDArray[np.bool_]) -> Pose:
        """Then mirrored left to right where `which` [B]."""
        sign = np.where(which, -1, 1)
        return replace(self, xx=self.xx * sign, yx=self.yx * sign)

    def rotated(self, steps: Ints) -> Pose:
        """Then rotated counter-clockwise by `steps` [B] of 1/STEPS_PER_DEGREE degree."""
        table = sines()
        sin, cos = table[steps % _TURN], table[(steps + _TURN // 4) % _TURN]
        return replace(
            self,
            xx=_scaled(self.xx * cos + self.xy * sin),
            xy=_scaled(self.xy * cos - self.xx * sin),
            yx=_scaled(self.yx * cos + self.yy * sin),
            yy=_scaled(self.yy * cos - self.yx * sin),
        )


def sample(images: NDArray[Any], pose: Pose, between: bool, mirror_edges: bool, fill: float) -> NDArray[Any]:
    """Images [B, H, W, C] seen through their poses.

    Where `between` is set, positions may fall between pixels and the result is float32, bilinear; else they must not,
    and the dtype stays. What lies outside an image is its mirror image (without repeating the edge), or `fill`.
    """
    batch, height, width, channels = images.shape
    planes = np.full((batch, channels, height + 3, width + 3), fill, np.float32 if between else images.dtype)
    planes[:, :, 1:-2, 1:-2] = images.transpose(0, 3, 1, 2)
    plane, line = (height + 3) * (width + 3), width + 3
    x, y = _centred(width)[:, None, :], _centred(height)[:, :, None]
    columns, rows = _each(pose.xx, x, pose.x + (width - 1) * ONE), _each(pose.yy, y, pose.y + (height - 1) * ONE)
    if between:
        columns, rows = columns + _each(pose.xy, y), rows + _each(pose.yx, x)
    columns, rows = _in_pixels(columns, width, mirror_edges), _in_pixels(rows, height, mirror_edges)
    corner = (((rows >> 16) + 1) * np.int32(line) + ((columns >> 16) + 1))[:, None]
    first = np.arange(batch * channels, dtype=np.int64).reshape(batch, channels, 1, 1) * plane + corner
    pixels = planes.reshape(-1)
    if between:
        right, below = _fraction(columns), _fraction(rows)
        upper = _blend(pixels.take(first), pixels[1:].take(first), right)
        lower = _blend(pixels[line:].take(first), pixels[line + 1 :].take(first), right)
        sampled: NDArray[Any] = _blend(upper, lower, below)
    else:
        sampled = pixels.take(first)
    return sampled.transpose(0, 2, 3, 1)


@functools.cache
def sines() -> Ints:
    """sin of every multiple of 1/STEPS_PER_DEGREE degree, in units of 1/ONE.

    None lies within 1e-6 of a rounding boundary (a test looks), so a last bit of libm cannot change the table.
    """
    return np.array([round(ONE * math.sin(2 * math.pi * step / _TURN)) for step in range(_TURN)], np.int64)


def _in_pixels(half_pixels: NDArray[np.int32], size: int, mirror_edges: bool) -> NDArray[np.int32]:
    """Positions on an axis of `size` pixels, in units of 1/ONE pixel, from -1 to size."""
    positions = half_pixels >> 1
    if mirror_edges:
        last = np.int32((size - 1) * ONE)
        positions = last - np.abs(last - np.abs(positions))
    bounded: NDArray[np.int32] = np.minimum(np.maximum(positions, np.int32(-ONE)), np.int32(size * ONE))
    return bounded


def _centred(size: int) -> Ints:
    """[1, size] pixel centres about the middle, in half pixels."""
    return (2 * np.arange(size, dtype=np.int64) - (size - 1))[None, :]


def _each(factor: Ints, centres: Ints, offset: Ints | int = 0) -> NDArray[np.int32]:
    """factor [B] * centres + offset [B], for every image."""
    products: NDArray[np.int64] = factor[:, None, None] * centres + np.reshape(offset, (-1, 1, 1))
    return products.astype(np.int32)


def _fraction(positions: NDArray[np.int32]) -> NDArray[np.float32]:
    """Weight of the next pixel, a multiple of 1/128."""
    return ((positions >> 9) & 127).astype(np.float32)[:, None] * np.float32(1 / 128)


def _blend(first: NDArray[Any], second: NDArray[Any], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    blended: NDArray[np.float32] = first + (second - first) * weight
    return blended


def _scaled(product: Ints) -> Ints:
    return (product + ONE // 2) >> 16
