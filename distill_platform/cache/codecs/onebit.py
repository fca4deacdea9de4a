"""The K largest logits, and of every other class one bit: on which side of the others' mean it lies.

A side is put back as its own mean, the value of least squared error (Seide et al. 2014, "1-bit stochastic gradient
descent", section 3.2, do so with gradients). `topk` says nothing of how the others differ; at T = 4, where a hundred
classes share in the gradient, students taught by it are less accurate than by all logits, and by this as accurate, in
one byte more. At T = 8 both cost accuracy (docs/cache.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_platform.cache.bits import Widths, pack, packed_size_bytes, unpack, width_for
from distill_platform.cache.codecs.codec import SMALLEST_LOSSY, Codec, Columns, as_columns, chunks, largest, narrowed
from distill_platform.cache.encoding import Encoding
from distill_platform.cache.targets import DenseTarget
from distill_platform.data.draws import U64


def encode_onebit(logits: Tensor, encoding: Encoding, streams: U64) -> Columns:
    """`sides`: a bit for each class, then the ids of the K largest; `values` fp16 `[…, K + 2]`.

    Values are the row's largest logit, and relative to it, where fp16 is finer: the K - 1 that follow, then the means
    of the lower and of the upper side. Raises CacheMismatch for logits that are not finite.
    """
    parts = [_encode_rows(rows, encoding) for rows in chunks(logits.flatten(0, -2))]
    return as_columns({name: torch.cat([part[name] for part in parts]) for name in ONEBIT.columns}, logits.shape[:-1])


def _encode_rows(rows: Tensor, encoding: Encoding) -> dict[str, Tensor]:
    values, ids = largest(rows, encoding.keep)
    others = rows - values[:, :1]
    is_other = torch.ones_like(others).scatter_(-1, ids, 0)
    mean = (others * is_other).sum(-1, keepdim=True) / is_other.sum(-1, keepdim=True)
    is_upper = is_other * (others > mean)
    is_lower = is_other - is_upper
    upper, lower = (
        (others * side).sum(-1, keepdim=True) / side.sum(-1, keepdim=True).clamp(min=1) for side in (is_upper, is_lower)
    )
    return {
        "sides": pack(torch.cat((is_upper.long(), ids), -1), _widths(encoding)),
        "values": narrowed(torch.cat((values[:, :1], values[:, 1:] - values[:, :1], lower, upper), -1), encoding),
    }


def decode_onebit(columns: Mapping[str, Tensor], encoding: Encoding, constants: Mapping[str, Tensor]) -> DenseTarget:
    """Columns -> fp32 logits `[…, C]`."""
    sides, ids = unpack(columns["sides"], _widths(encoding)).split((encoding.num_classes, encoding.keep), -1)
    largest_logit, values = columns["values"].float().split((1, encoding.keep + 1), -1)
    logits = values[..., -2:].gather(-1, sides)
    return DenseTarget(logits.scatter_(-1, ids, F.pad(values[..., :-2], (1, 0))).add_(largest_logit))


def _widths(encoding: Encoding) -> Widths:
    return (1,) * encoding.num_classes + (width_for(encoding.num_classes),) * encoding.keep


ONEBIT = Codec(
    encode=encode_onebit,
    decode=decode_onebit,
    columns=("sides", "values"),
    target=DenseTarget,
    bytes_per_unit=lambda encoding: packed_size_bytes(_widths(encoding)) + 2 * (encoding.keep + 2),
    temperatures=(1.0, 8.0),
    keep=4,
    automatic_classes=(SMALLEST_LOSSY, 128),
    automatic_temperature=4.0,
)
