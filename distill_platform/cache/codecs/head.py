"""The teacher's last hidden state; the output layer that makes logits of it is kept once for all rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from distill_platform.cache.codecs.codec import STORED, Codec, Columns, narrowed
from distill_platform.cache.encoding import Encoding
from distill_platform.cache.targets import DenseTarget
from distill_platform.data.draws import U64

WEIGHT, BIAS = "weight", "bias"
"""The constants: the output layer's matrix `[C, H]` and, if it has one, its bias `[C]`, in fp32."""


def encode_head(hidden: Tensor, encoding: Encoding, streams: U64) -> Columns:
    """The last hidden state `[…, H]` as `encoding.dtype`. Raises CacheMismatch for values that fp16 cannot hold."""
    return {"hidden": narrowed(hidden, encoding).cpu().numpy()}


def decode_head(columns: Mapping[str, Tensor], encoding: Encoding, constants: Mapping[str, Tensor]) -> DenseTarget:
    """`[…, H]` times the output layer -> fp32 logits `[…, C]`, of every class and so for every temperature."""
    return DenseTarget(F.linear(columns["hidden"].float(), constants[WEIGHT], constants.get(BIAS)))


HEAD = Codec(
    encode=encode_head,
    decode=decode_head,
    columns=("hidden",),
    target=DenseTarget,
    bytes_per_unit=lambda encoding: encoding.hidden_size * STORED[encoding.dtype].itemsize,
    source="hidden",
    dtypes=("float16", "float32"),
)
