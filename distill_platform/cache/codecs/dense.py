"""Every logit: as it is, as two planes of bytes, or as four bits of a scale of the row's own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from distill_platform.cache.bits import pack_nibbles, unpack_nibbles
from distill_platform.cache.codecs.codec import STORED, Codec, Columns, as_columns, chunks, narrowed
from distill_platform.cache.encoding import Encoding
from distill_platform.cache.targets import DenseTarget
from distill_platform.data.draws import U64

LEVELS = 15
"""Steps of an int4 scale: codes 0 to 15."""
SMALLEST_STEP = 2.0**-24
"""The smallest positive fp16; a row whose logits are all equal has a step of 0."""


def encode_dense(logits: Tensor, encoding: Encoding, streams: U64) -> Columns:
    """Every logit as `encoding.dtype`. Raises CacheMismatch for logits that fp16 cannot hold (beyond 65,504)."""
    return {"logits": narrowed(logits, encoding).cpu().numpy()}


def decode_dense(columns: Mapping[str, Tensor], encoding: Encoding, constants: Mapping[str, Tensor]) -> DenseTarget:
    """`[…, C]` -> fp32 logits."""
    return DenseTarget(columns["logits"].float())


def encode_planes(logits: Tensor, encoding: Encoding, streams: U64) -> Columns:
    """fp16 logits as two columns of bytes `[…, C]`: `high` (sign, exponent, two bits) compresses, `low` is noise."""
    pairs = narrowed(logits, encoding).cpu().contiguous().view(torch.uint8).unflatten(-1, (-1, 2))
    return {"high": pairs[..., 1].contiguous().numpy(), "low": pairs[..., 0].contiguous().numpy()}


def decode_planes(columns: Mapping[str, Tensor], encoding: Encoding, constants: Mapping[str, Tensor]) -> DenseTarget:
    """Two planes of bytes -> fp32 logits, equal to those of `dense`."""
    pairs = torch.stack((columns["low"], columns["high"]), -1).flatten(-2)
    return DenseTarget(pairs.view(torch.float16).float())


def encode_int4(logits: Tensor, encoding: Encoding, streams: U64) -> Columns:
    """Logit -> the nearest of 16 values from the row's minimum to its maximum; minimum and step are kept as fp16.

    Codes count steps of the step as it is stored, so its rounding adds no error of its own.
    """
    parts = [_encode_int4_rows(rows, encoding) for rows in chunks(logits.flatten(0, -2))]
    return as_columns({name: torch.cat([part[name] for part in parts]) for name in INT4.columns}, logits.shape[:-1])


def _encode_int4_rows(rows: Tensor, encoding: Encoding) -> dict[str, Tensor]:
    low, high = rows.aminmax(dim=-1, keepdim=True)
    scale = narrowed(torch.cat(((high - low) / LEVELS, low), -1), encoding)
    step, low = scale.float().split(1, -1)
    codes = (rows - low).div_(step.clamp(min=SMALLEST_STEP)).round_().clamp_(0, LEVELS)
    return {"codes": pack_nibbles(codes), "scale": scale}


def decode_int4(columns: Mapping[str, Tensor], encoding: Encoding, constants: Mapping[str, Tensor]) -> DenseTarget:
    """Codes and scale -> fp32 logits."""
    step, low = columns["scale"].float().split(1, -1)
    return DenseTarget(unpack_nibbles(columns["codes"], encoding.num_classes).float().mul_(step).add_(low))


def _dense_bytes(encoding: Encoding) -> int:
    return encoding.num_classes * STORED[encoding.dtype].itemsize


DENSE = Codec(
    encode=encode_dense,
    decode=decode_dense,
    columns=("logits",),
    target=DenseTarget,
    bytes_per_unit=_dense_bytes,
    dtypes=("float16", "float32"),
    automatic_classes=(2, float("inf")),
)
PLANES = Codec(
    encode=encode_planes,
    decode=decode_planes,
    columns=("high", "low"),
    target=DenseTarget,
    bytes_per_unit=_dense_bytes,
    compressed=("high",),
)
INT4 = Codec(
    encode=encode_int4,
    decode=decode_int4,
    columns=("codes", "scale"),
    target=DenseTarget,
    bytes_per_unit=lambda encoding: -(-encoding.num_classes // 2) + 4,
    temperatures=(1.0, float("inf")),
)
