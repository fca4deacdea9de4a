"""What a codec is, and what several share: rows in chunks, numbers in short formats, the largest of many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distill_platform.cache.encoding import Encoding
from distill_platform.cache.targets import Target
from distill_platform.data.draws import U64
from distill_platform.errors import CacheMismatch

Columns = dict[str, np.ndarray[Any, Any]]
"""Column name -> values `[…, width]`: the leading axes are those of the units that were encoded."""

STORED = {"float16": torch.float16, "float32": torch.float32}
BLOCK = 256
"""Entries of a row that are looked at together where a row is long."""
SMALLEST_LOSSY = 32
"""Classes from which on it is worth to lose anything: below, every logit takes 64 bytes at most."""


@dataclass(frozen=True)
class Codec:
    """One way to store a unit (an image's class scores, a token's next-token scores).

    encode:    (values `[…, C]` fp32, encoding, streams `[B]` uint64) -> columns. `values` are raw logits, or with
               `source` "hidden" last hidden states `[…, H]`; B is their first axis. `streams` is each row's own random
               state, from its key and view, for codecs that draw. A row's columns depend on that row alone.
    decode:    (columns, encoding, constants) -> target. `constants` is what a cache holds once for all rows.
    columns:   the names of what encode gives and decode takes.
    target:    what decode gives.
    bytes_per_unit: stored bytes of one unit, before the compression of columns named in `compressed`.
    temperatures: lowest and highest temperature it carries; a spec that leaves them is refused. By the mean
               KL(teacher || decoded) in benchmarks/codec_errors.py, below 0.03 nats at 100 classes, and of `dense`,
               `planes` and `topk` at any number; of `ternary` by the accuracy of its students.
    source:    "logits" or "hidden".
    dtypes:    number formats that `encoding.dtype` may name.
    keep:      K unless the spec says otherwise; 0 for a codec that keeps every class.
    compressed: columns that are worth compressing at rest; the others look like noise.
    automatic_classes, automatic_temperature: from how many classes to how many, and up to which temperature,
               `cache.codec: auto` may choose it: where benchmarks/cache_quality.py finds its students within the seeds'
               noise of those of `dense`. None: never.
    """

    encode: Callable[[Tensor, Encoding, U64], Columns]
    decode: Callable[[Mapping[str, Tensor], Encoding, Mapping[str, Tensor]], Target]
    columns: tuple[str, ...]
    target: type[Target]
    bytes_per_unit: Callable[[Encoding], int]
    temperatures: tuple[float, float] = (0.0, float("inf"))
    source: str = "logits"
    dtypes: tuple[str, ...] = ("float16",)
    keep: int = 0
    compressed: tuple[str, ...] = ()
    automatic_classes: tuple[float, float] | None = None
    automatic_temperature: float = float("inf")


def narrowed(values: Tensor, encoding: Encoding) -> Tensor:
    """Values `[…, n]` as `encoding.dtype`. Raises CacheMismatch naming rows whose values it cannot hold."""
    stored = values.to(STORED[encoding.dtype])  # numpy's own fp16 cast and isfinite take ten times as long
    if stored.numel() and not torch.isfinite(torch.stack(torch.aminmax(stored))).all():
        rows = torch.nonzero(~torch.isfinite(stored).all(-1).flatten()).flatten().tolist()
        raise CacheMismatch(
            f"{len(rows)} rows hold logits that {encoding.dtype} cannot (first: row {rows[0]}, largest magnitude "
            f"{values.abs().max():g}); set cache.dtype to float32 with cache.codec dense, or look at the teacher if "
            "they are not finite"
        )
    return stored


def chunks(rows: Tensor) -> Iterator[Tensor]:
    """Rows `[N, C]` a few at a time: as many as a CPU's caches hold, or as keep a GPU busy."""
    entries = 2**20 if rows.device.type == "cpu" else 2**26
    return iter(rows.split(max(1, entries // rows.shape[-1])))


def as_columns(columns: Mapping[str, Tensor], leading: tuple[int, ...]) -> Columns:
    """Columns of flattened units `[N, width]` as they are stored, `[*leading, width]`."""
    return {name: values.reshape(*leading, values.shape[-1]).cpu().numpy() for name, values in columns.items()}


def in_blocks(rows: Tensor, fill: float) -> Tensor:
    """Rows `[N, C]` -> `[N, ceil(C / BLOCK), BLOCK]`, filled up with `fill`."""
    missing = -rows.shape[-1] % BLOCK
    blocks: Tensor = (F.pad(rows, (0, missing), value=fill) if missing else rows).unflatten(-1, (-1, BLOCK))
    return blocks


def largest(rows: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The `keep` largest of each row `[N, C]`, descending, and their places: `[N, K]` each, int64 places.

    A block that holds one of the K largest has one of the K largest maxima; so all other blocks are left aside, which
    at C = 131,072 takes a tenth of the time of `topk` on the whole row.
    """
    if rows.shape[-1] <= 4 * keep * BLOCK:
        values, place = rows.topk(keep, sorted=True)
        return values, place
    blocks = in_blocks(rows, -torch.inf)
    chosen = blocks.amax(-1).topk(keep).indices
    candidates = blocks.gather(1, chosen[:, :, None].expand(-1, -1, BLOCK))
    values, place = candidates.flatten(1).topk(keep, sorted=True)
    return values, chosen.gather(1, place // BLOCK) * BLOCK + place % BLOCK
