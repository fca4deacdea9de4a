"""The K largest logits, and of every other class one of three levels of the row's own.

`topk` says nothing of how the others differ, and at T = 4 and above, where a hundred classes share in the gradient,
students notice. Taught by three levels they are as accurate as by every logit, from T = 1 to 8; two levels were tried
and were not enough at T = 8 (docs/cache.md).

The mean of its classes is a level's value of least squared error, but a tail of such means is flatter than the
teacher's, and so becomes the student's. The covariance of means with logits is the means' own variance; so here levels
are spread about the common mean by the variance of the logits over that of the means, and a line through (logit, level)
rises by 1. Vargaftik et al. 2021 (arXiv:2105.08339, "DRIVE") scale quantised gradients so. The squared error grows by a
sixth; but students at T = 8 come as close to the teacher as with every logit, which they did not by means.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_platform.cache.bits import (
    Widths,
    pack,
    pack_trits,
    packed_size_bytes,
    trits_size_bytes,
    unpack,
    unpack_trits,
    width_for,
)
from distill_platform.cache.codecs.codec import SMALLEST_LOSSY, Codec, Columns, as_columns, chunks, largest, narrowed
from distill_platform.cache.encoding import Encoding
from distill_platform.cache.targets import DenseTarget
from distill_platform.data.draws import U64

EDGE = 0.612
"""Of three levels of least squared error for a Gaussian, the edge between two, in deviations from its mean: Max 1960,
"Quantizing for minimum distortion", table I. Edges at the row's own best place made students no
better."""
SCALE_BITS = 11
"""Of an fp16 without its sign: its exponent and six bits of its mantissa."""
DEPTH_BITS = 5
STEPS = 2**DEPTH_BITS - 1
SMALLEST_SCALE = 2.0**-24


def encode_ternary(logits: Tensor, encoding: Encoding, streams: U64) -> Columns:
    """`trits`: each class's level, from the highest down, and 1 for the K largest; `values`: what they stand for.

    All is in depths, distances below the row's largest logit: a shift of all logits changes no softened distribution.
    `values` packs the ids of the K largest, descending; the depth of the lowest level in SCALE_BITS; and as shares of
    it, in DEPTH_BITS each, the depths of the second to K-th largest, of the highest level and of the middle one. A
    share is (code / STEPS)^2: finest near 0, where the probable classes are.

    Raises CacheMismatch for logits that are not finite, or that lie further apart than fp16 reaches.
    """
    parts = [_encode_rows(rows, encoding) for rows in chunks(logits.flatten(0, -2))]
    return as_columns({name: torch.cat([part[name] for part in parts]) for name in TERNARY.columns}, logits.shape[:-1])


def _encode_rows(rows: Tensor, encoding: Encoding) -> dict[str, Tensor]:
    values, ids = largest(rows, encoding.keep)
    depths = values[:, :1] - rows
    trits, levels = _three_levels(depths, torch.ones_like(depths).scatter_(-1, ids, 0))
    scale_bits = _as_bits(narrowed(levels[:, 2:], encoding))
    wanted = torch.cat((values[:, :1] - values[:, 1:], levels[:, :2]), -1)
    shares = wanted / _from_bits(scale_bits).clamp(min=SMALLEST_SCALE)
    codes = shares.clamp_(0, 1).sqrt_().mul_(STEPS).round_().long()
    return {"trits": pack_trits(trits), "values": pack(torch.cat((ids, scale_bits, codes), -1), _widths(encoding))}


def _three_levels(depths: Tensor, is_other: Tensor) -> tuple[Tensor, Tensor]:
    """Depths `[N, C]` -> each class's level, 0 to 2; the levels `[N, 3]` of the classes that `is_other` marks by 1."""
    num_others = is_other.sum(-1, keepdim=True)
    others = depths * is_other
    total = others.sum(-1, keepdim=True)
    mean = total / num_others
    variance = ((depths - mean).square_() * is_other).sum(-1, keepdim=True) / num_others
    edge = EDGE * variance.sqrt()
    is_upper, is_lower = (depths < mean - edge) * is_other, (depths > mean + edge) * is_other
    counts, sums = (
        torch.cat((upper, all_three - upper - lower, lower), -1)
        for upper, all_three, lower in (
            (is_upper.sum(-1, keepdim=True), num_others, is_lower.sum(-1, keepdim=True)),
            ((others * is_upper).sum(-1, keepdim=True), total, (others * is_lower).sum(-1, keepdim=True)),
        )
    )
    # a level of no class is 0 here, and nobody reads it; but the lowest is the scale of the others
    levels = (sums / counts.clamp(min=1)).cummax(-1).values
    between = (counts * (levels - mean).square()).sum(-1, keepdim=True) / num_others
    spread = variance / between.clamp(min=torch.finfo(between.dtype).tiny)
    return 1 - is_upper + is_lower, mean + spread * (levels - mean)


def decode_ternary(columns: Mapping[str, Tensor], encoding: Encoding, constants: Mapping[str, Tensor]) -> DenseTarget:
    """Columns -> fp32 logits `[…, C]` of mean 0, which is about where a classifier's own are."""
    keep = encoding.keep
    ids, scale_bits, codes = unpack(columns["values"], _widths(encoding)).split((keep, 1, keep + 1), -1)
    scale = _from_bits(scale_bits)
    following, levels = ((codes / STEPS).square_() * scale).split((keep - 1, 2), -1)
    depths = torch.cat((levels, scale), -1).gather(-1, unpack_trits(columns["trits"], encoding.num_classes))
    depths.scatter_(-1, ids, F.pad(following, (1, 0)))
    return DenseTarget(depths.mean(-1, keepdim=True) - depths)


def _as_bits(scale: Tensor) -> Tensor:
    """fp16, at least 0 -> int64, the nearest number of SCALE_BITS."""
    dropped = 15 - SCALE_BITS
    bits = scale.view(torch.int16).long() + 2 ** (dropped - 1) >> dropped
    return torch.clamp(bits, max=(0b11111 << SCALE_BITS - 5) - 1)  # the next would be infinite


def _from_bits(bits: Tensor) -> Tensor:
    return (bits << 15 - SCALE_BITS).to(torch.int16).view(torch.float16).float()


def _widths(encoding: Encoding) -> Widths:
    ids = (width_for(encoding.num_classes),) * encoding.keep
    return (*ids, SCALE_BITS, *(DEPTH_BITS,) * (encoding.keep + 1))


TERNARY = Codec(
    encode=encode_ternary,
    decode=decode_ternary,
    columns=("trits", "values"),
    target=DenseTarget,
    bytes_per_unit=lambda encoding: trits_size_bytes(encoding.num_classes) + packed_size_bytes(_widths(encoding)),
    temperatures=(1.0, 8.0),
    keep=4,
    automatic_classes=(SMALLEST_LOSSY, 128),
    automatic_temperature=8.0,
)
