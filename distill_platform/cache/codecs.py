"""Raw logits <-> fixed-width columns. Each codec is a pure encode/decode pair behind the dict CODECS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from distill_platform.cache.targets import DenseTarget, Target
from distill_platform.errors import CacheMismatch

Columns = dict[str, np.ndarray[Any, Any]]


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
    with np.errstate(over="ignore"):  # what overflows is refused below
        values = logits_NC.astype(dtype)
    if not np.isfinite(values).all():
        rows = np.flatnonzero(~np.isfinite(values).all(axis=-1))
        raise CacheMismatch(
            f"{len(rows)} rows hold logits that {dtype} cannot (first: row {rows[0]}, largest magnitude "
            f"{np.abs(logits_NC).max():g}); set cache.dtype to float32, or look at the teacher if they are not finite"
        )
    return {"logits": values}


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
