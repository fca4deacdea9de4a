"""The K largest logits, and of all others what a loss needs of them: mean, and log-sum-exp at two temperatures."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_platform.cache.bits import Widths, pack, packed_size_bytes, unpack, width_for
from distill_platform.cache.codecs.codec import SMALLEST_LOSSY, Codec, Columns, as_columns, chunks, largest, narrowed
from distill_platform.cache.encoding import Encoding
from distill_platform.cache.targets import TopKTarget
from distill_platform.data.draws import U64


def encode_topk(logits: Tensor, encoding: Encoding, streams: U64) -> Columns:
    """`ids` in descending order of logits; `values` fp16 `[…, K + 2]`: K - 1 logits, then the tail's mean and softness.

    All are relative to the row's largest logit, which is 0 then and not stored: a shift of all logits changes no
    softened distribution, and fp16 is finest near 0, which is where the probable classes are. The tail's log-sum-exp
    is kept at T = 2 and at T = 1. Raises CacheMismatch for logits that are not finite.
    """
    parts = [_encode_rows(rows, encoding) for rows in chunks(logits.flatten(0, -2))]
    return as_columns({name: torch.cat([part[name] for part in parts]) for name in TOPK.columns}, logits.shape[:-1])


def _encode_rows(rows: Tensor, encoding: Encoding) -> dict[str, Tensor]:
    keep = encoding.keep
    values, ids = largest(rows, keep + 1)
    (values, best), ids = values.split((keep, 1), -1), ids[:, :keep]  # `best` of the tail
    top = values[:, :1]
    mean = (rows.sum(-1, keepdim=True) - values.sum(-1, keepdim=True)) / (encoding.num_classes - keep)
    roots = rows.scatter(-1, ids, -torch.inf).sub_(best).mul_(0.5).exp_()
    lse_at_2 = roots.sum(-1, keepdim=True).log() + (best - top) / 2
    lse = roots.square_().sum(-1, keepdim=True).log() + best - top
    return {
        "ids": pack(ids, _widths(encoding)),
        "values": narrowed(torch.cat((values[:, 1:] - top, mean - top, lse_at_2, lse), -1), encoding),
    }


def decode_topk(columns: Mapping[str, Tensor], encoding: Encoding, constants: Mapping[str, Tensor]) -> TopKTarget:
    """Columns -> target, logits relative to the row's largest."""
    values = columns["values"].float()
    logits, (mean, lse_at_2, lse) = F.pad(values[..., :-3], (1, 0)), values[..., -3:].unbind(-1)
    ids = unpack(columns["ids"], _widths(encoding))
    return TopKTarget(ids, logits, lse, lse_at_2, mean, encoding.num_classes)


def _widths(encoding: Encoding) -> Widths:
    return (width_for(encoding.num_classes),) * encoding.keep


TOPK = Codec(
    encode=encode_topk,
    decode=decode_topk,
    columns=("ids", "values"),
    target=TopKTarget,
    bytes_per_unit=lambda encoding: packed_size_bytes(_widths(encoding)) + 2 * (encoding.keep + 2),
    temperatures=(1.0, float("inf")),
    keep=8,
    automatic_classes=(SMALLEST_LOSSY, 128),
    automatic_temperature=2.0,
)
