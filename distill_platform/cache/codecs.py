"""A teacher's outputs <-> fixed-width columns. Each codec is a pure encode/decode pair behind the dict CODECS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill_platform.cache.encoding import Encoding
from distill_platform.cache.targets import DenseTarget, Target
from distill_platform.data.draws import U64
from distill_platform.errors import CacheMismatch

Columns = dict[str, np.ndarray[Any, Any]]
"""Column name -> values `[…, width]`: the leading axes are those of the units that were encoded."""

STORED = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Codec:
    """One way to store a unit (an image's class scores, a token's next-token scores).

    encode:    (values `[…, C]` fp32, encoding, streams `[…]` uint64) -> columns. `values` are raw logits, or with
               `source` "hidden" last hidden states `[…, H]`. `streams` is each row's own random state, from its key and
               view, for codecs that draw. A row's columns depend on that row alone.
    decode:    (columns, encoding, constants) -> target. `constants` is what a cache holds once for all rows.
    columns:   the names of what encode gives and decode takes.
    target:    what decode gives.
    temperatures: lowest and highest temperature at which its error is within what docs/cache.md states.
    bytes_per_unit: stored bytes of one unit.
    """

    encode: Callable[[Tensor, Encoding, U64], Columns]
    decode: Callable[[Mapping[str, Tensor], Encoding, Mapping[str, Tensor]], Target]
    columns: tuple[str, ...]
    target: type[Target]
    bytes_per_unit: Callable[[Encoding], int]
    temperatures: tuple[float, float] = (0.0, float("inf"))
    source: str = "logits"


def encode_dense(logits: Tensor, encoding: Encoding, streams: U64) -> Columns:
    """Every logit as `encoding.dtype`. Raises CacheMismatch for logits that fp16 cannot hold (beyond 65,504)."""
    values = logits.to(STORED[encoding.dtype])  # numpy's own fp16 cast and isfinite take ten times as long
    if values.numel() and not torch.isfinite(torch.stack(torch.aminmax(values))).all():
        rows = torch.nonzero(~torch.isfinite(values).all(-1).flatten()).flatten().tolist()
        raise CacheMismatch(
            f"{len(rows)} rows hold logits that {encoding.dtype} cannot (first: row {rows[0]}, largest magnitude "
            f"{logits.abs().max():g}); set cache.dtype to float32, or look at the teacher if they are not finite"
        )
    return {"logits": values.numpy()}


def decode_dense(columns: Mapping[str, Tensor], encoding: Encoding, constants: Mapping[str, Tensor]) -> DenseTarget:
    """Rows `[B, C]` -> fp32 logits."""
    return DenseTarget(columns["logits"].float())


CODECS: dict[str, Codec] = {
    "dense": Codec(
        encode=encode_dense,
        decode=decode_dense,
        columns=("logits",),
        target=DenseTarget,
        bytes_per_unit=lambda encoding: encoding.num_classes * np.dtype(encoding.dtype).itemsize,
    ),
}

KEY_BYTES = 16 + 2
"""Bytes of a row beside its units: the example's key and the view's number."""
