"""Mixing two examples of one shape: how much of each, where, and the mixed values; bit-identical on every machine.

A mix is a *patch* for each example: a box, and how many 256ths of the example itself are kept inside it; outside, all
of it is. Mixup's box is the whole example, cutmix keeps nothing inside. Shares of 1/256 make the maths exact: in
integers for 8-bit pixels, and as one multiplication each and one addition in float32.

mixup:   Zhang et al. 2018, arXiv:1710.09412, equations 1 and 2.
cutmix:  Yun et al. 2019, arXiv:1905.04899, section 3.1, equations 1 and 2.
"""

from __future__ import annotations

import decimal
import functools
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill_platform.data.draws import U64, draw, integers
from distill_platform.data.schema import InputSpec

Ints = NDArray[np.int64]
Patches = Ints
"""[B, 5]: 256ths of the example itself that stay inside its box, and the box's top, bottom, left and right."""

WHOLE = 256
UNMIXED = np.array([WHOLE, 0, 0, 0, 0])


def mixup(stream: U64, arguments: Mapping[str, float], spec: InputSpec) -> Patches:
    """[B, 5]: everywhere the same share, from Beta(alpha, alpha)."""
    height, width = plane(spec)
    kept = beta(draw(stream, 0), arguments["alpha"])
    bottom, right = np.full_like(kept, height), np.full_like(kept, width)
    return np.stack([kept, 0 * kept, bottom, 0 * kept, right], axis=1)


def cutmix(stream: U64, arguments: Mapping[str, float], spec: InputSpec) -> Patches:
    """[B, 5]: nothing inside a box of the image's proportions, its share of the area from Beta(alpha, alpha).

    Its centre is any pixel; what of it lies outside the image is cut off, so the share that counts is the rest's.
    """
    height, width = plane(spec)
    kept = beta(draw(stream, 0), arguments["alpha"])
    top = integers(draw(stream, 1), 0, height - 1) - _sides(height)[kept] // 2
    left = integers(draw(stream, 2), 0, width - 1) - _sides(width)[kept] // 2
    bottom, right = top + _sides(height)[kept], left + _sides(width)[kept]
    clipped = [top.clip(0), bottom.clip(max=height), left.clip(0), right.clip(max=width)]
    return np.stack([0 * kept, *clipped], axis=1)


def plane(spec: InputSpec) -> tuple[int, int]:
    """Height and width; features are one pixel with a channel for each."""
    return (spec.shape[0], spec.shape[1]) if spec.kind == "image" else (1, 1)


def own_share(patches: Patches, spec: InputSpec) -> NDArray[np.float32]:
    """[B] how much of the mixed example is its own, 0 to 1: the mean over its pixels, the nearest float32 to it."""
    kept, top, bottom, left, right = patches.T
    whole = math.prod(plane(spec)) * WHOLE
    own = whole - (bottom - top) * (right - left) * (WHOLE - kept)
    shares: NDArray[np.float32] = (own / whole).astype(np.float32)
    return shares


def blend(own: NDArray[Any], partner: NDArray[Any], patches: Patches, spec: InputSpec) -> NDArray[Any]:
    """Examples `[B, *shape]` mixed with their partners; the dtype stays. 8-bit values are rounded half up."""
    rows, columns = (np.arange(size)[None, :] for size in plane(spec))
    kept, top, bottom, left, right = (values[:, None] for values in patches.T)
    inside = ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None, :]
    share = np.where(inside, kept.astype(np.uint16)[:, :, None], np.uint16(WHOLE))  # [B, H, W]
    share = share[..., None] if spec.kind == "image" else share[..., 0]
    if own.dtype == np.uint8:
        pixels: NDArray[np.uint16] = own * share + partner * (WHOLE - share) + WHOLE // 2  # 255 * 256 + 128 < 2**16
        return (pixels >> 8).astype(np.uint8)
    weight = share.astype(np.float32) / np.float32(WHOLE)
    mixed: NDArray[np.float32] = own * weight + partner * (1 - weight)
    return np.clip(mixed, spec.low, spec.high) if spec.kind == "image" else mixed  # a last bit may lie outside


def beta(uniform: U64, alpha: float) -> Ints:
    """Uniform 64-bit numbers as draws from Beta(alpha, alpha), rounded to 256ths: integers from 0 to 256."""
    return np.searchsorted(beta_boundaries(alpha), uniform >> np.uint64(32), side="right")


@functools.cache
def beta_boundaries(alpha: float) -> U64:
    """2**32 times the chance of less than (k + 1/2) / 256, for k from 0 to 255.

    The incomplete beta function's series (DLMF 8.17.8) over its value at 1/2, where symmetry says 1/2:

        I_x(a, a) = S(x) (4 x (1 - x))^a / (2 S(1/2)),  S(x) = sum over n of x^n (2a)_n / (a + 1)_n,  x <= 1/2

    In decimal arithmetic, whose ln and exp are rounded correctly by specification: no machine's libm and no release of
    a library can move a boundary, and with it what a teacher was shown.
    """
    with decimal.localcontext(decimal.Context(prec=40, rounding=decimal.ROUND_HALF_EVEN)):
        a = Decimal(alpha)
        middle = _series(a, Decimal("0.5"))
        lower = []
        for k in range(WHOLE // 2):
            x = Decimal(2 * k + 1) / (2 * WHOLE)
            lower.append(_series(a, x) / middle * (a * (4 * x * (1 - x)).ln()).exp() / 2)
        both = [*lower, *(1 - chance for chance in reversed(lower))]
        return np.array([int((chance * 2**32).to_integral_value()) for chance in both], np.uint64)


def _series(a: Decimal, x: Decimal) -> Decimal:
    """S(x), to thirty digits: every term is positive and smaller than the one before."""
    total = term = Decimal(1)
    n = 0
    while term > total * Decimal("1e-32"):
        term *= x * (2 * a + n) / (a + 1 + n)
        total += term
        n += 1
    return total


@functools.cache
def _sides(size: int) -> Ints:
    """Of a box on an axis of `size` pixels, [257]: floor(size * sqrt(1 - kept / 256)) for kept from 0 to 256."""
    return np.array([math.isqrt(size * size * (WHOLE - kept) // WHOLE) for kept in range(WHOLE + 1)])
