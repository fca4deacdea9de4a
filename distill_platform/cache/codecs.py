"""Raw logits <-> fixed-width columns. Each codec is a pure encode/decode pair behind the dict CODECS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill_platform.cache.targets import DenseTarget, Target
from distill_platform.errors import CacheMismatch

Columns = dict[str, np.ndarray[Any, Any]]

STORED = {"float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Codec:
    """encode: (logits `[N, C]` fp32, dtype) -> columns `[N, …]`; decode: rows of those columns -> target."""

    encode: Callable[[np.ndarray[Any, Any], str], Columns]
    decode: Callable[[Mapping[str, Tensor]], Target]
    columns: tuple[str, ...]
    target: type[Target]
    bytes_per_unit: Callable[[int, str], int]


def encode_dense(logits_NC: np.ndarray[Any, Any], dtype: str) -> Columns:
    """Every logit as `dtype`. Raises CacheMismatch for logits that fp16 cannot hold (beyond 65,504)."""
    values = torch.from_numpy(logits_NC).to(STORED[dtype])  # numpy's own fp16 cast and isfinite take ten times as long
    if values.numel() and not torch.isfinite(torch.stack(torch.aminmax(values))).all():
        rows = torch.nonzero(~torch.isfinite(values).all(-1)).flatten().tolist()
        raise CacheMismatch(
            f"{len(rows)} rows hold logits that {dtype} cannot (first: row {rows[0]}, largest magnitude "
            f"{np.abs(logits_NC).max():g}); set cache.dtype to float32, or look at the teacher if they are not finite"
        )
    return {"logits": values.numpy()}


def decode_dense(columns: Mapping[str, Tensor]) -> DenseTarget:
    """Rows `[B, C]` -> fp32 logits."""
    return DenseTarget(columns["logits"].float())


CODECS: dict[str, Codec] = {
    "dense": Codec(
        encode=encode_dense,
        decode=decode_dense,
        columns=("logits",),
        target=DenseTarget,
        bytes_per_unit=lambda num_classes, dtype: num_classes * np.dtype(dtype).itemsize,
    ),
}

KEY_BYTES = 16 + 2
"""Bytes of a row beside its units: the example's key and the view's number."""
