"""Rows in order of key -> Parquet shards per split, and the train split's statistics on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distill_platform.data.blocks import width_of
from distill_platform.data.columns import write_columns
from distill_platform.data.schema import UNLABELLED, InputSpec
from distill_platform.data.splits import SPLITS
from distill_platform.data.spool import cells, keys_in

SHARD_BYTES = 64 * 2**20
_ROW_OVERHEAD = 256
"""About what key, id, group and label of a row take."""
_VALUES_AT_ONCE = 1 << 18


class Moments:
    """Minimum, maximum, mean and standard deviation of values along the last axis, part by part; empty for size 0.

    Parts are merged in float64 as in Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for
    computing sample variances", equation 2.1; equal parts in equal order give equal bits.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self.low, self.high = np.full(size, np.inf), np.full(size, -np.inf)
        self.mean, self._squares = np.zeros(size), np.zeros(size)

    @property
    def std(self) -> NDArray[np.float64]:
        """Of the values seen, as a population."""
        return np.sqrt(self._squares / max(1, self.count))

    def add(self, values: NDArray[Any]) -> None:
        """Take in values [..., size]."""
        flat = values.reshape(-1, values.shape[-1])
        step = max(1, _VALUES_AT_ONCE // flat.shape[1])
        for start in range(0, len(flat), step):
            self._merge(np.ascontiguousarray(flat[start : start + step].T, np.float64))

    def _merge(self, part: NDArray[np.float64]) -> None:
        added = part.shape[1]
        mean, total = part.mean(axis=1), self.count + added
        apart = mean - self.mean
        self._squares += np.square(part - mean[:, None]).sum(axis=1) + apart**2 * (self.count * added / total)
        self.mean = self.mean + apart * (added / total)
        self.low, self.high = np.minimum(self.low, part.min(axis=1)), np.maximum(self.high, part.max(axis=1))
        self.count = total


def write_shards(
    folder: Path,
    rows_in_order: Iterable[pa.Table],
    spec: InputSpec,
    class_names: Sequence[str],
    subgroup_names: Sequence[str] = (),
) -> Moments:
    """Write `<split>-00000.parquet`, … of at most about SHARD_BYTES; gives the statistics of train.

    Columns: key, id, group, label (int64; of tokens those that follow, int32), input; for tokens num_bytes; with
    subgroup names subgroup (int64). Labels and subgroups that are missing are UNLABELLED.
    """
    folder.mkdir(parents=True, exist_ok=True)
    moments = Moments(spec.shape[-1] if spec.padding is None else 0)
    names = {"label": pa.array(class_names, pa.string()), "subgroup": pa.array(subgroup_names, pa.string())}
    shards = {split: _Shards(folder, split, spec, names, moments if split == "train" else None) for split in SPLITS}
    for rows in rows_in_order:
        for split in SPLITS:
            shards[split].add(rows.filter(pc.equal(rows["split"], split)))
    for split in SPLITS:
        shards[split].close()
    return moments


class _Shards:
    """The shards of one split, each written as soon as its rows are there."""

    def __init__(
        self, folder: Path, split: str, spec: InputSpec, names: Mapping[str, pa.Array], moments: Moments | None
    ) -> None:
        self._folder, self._split, self._spec, self._moments = folder, split, spec, moments
        self._names = names
        width = width_of(spec) * (2 if spec.kind == "tokens" else 1)
        self._num_rows = max(1, SHARD_BYTES // (width + _ROW_OVERHEAD))
        self._waiting: list[pa.Table] = []
        self._num_written = 0

    def add(self, rows: pa.Table) -> None:
        self._waiting.append(rows)
        while sum(map(len, self._waiting)) >= self._num_rows:
            waiting = pa.concat_tables(self._waiting)
            self._write(waiting.slice(0, self._num_rows))
            self._waiting = [waiting.slice(self._num_rows)]

    def close(self) -> None:
        if any(map(len, self._waiting)):
            self._write(pa.concat_tables(self._waiting))

    def _write(self, rows: pa.Table) -> None:
        spec = self._spec
        inputs = cells(rows, "input", np.dtype(spec.dtype), spec.shape)
        columns = {
            "key": keys_in(rows),
            "id": rows["id"].to_pylist(),
            "group": rows["group"].to_pylist(),
            "label": _numbers(rows["label"], self._names["label"]),
            "input": inputs,
        }
        if spec.kind == "tokens":
            columns |= {
                "label": cells(rows, "target", np.dtype(spec.dtype), spec.shape),
                "num_bytes": rows["num_bytes"].to_numpy(),
            }
        if len(self._names["subgroup"]):
            columns["subgroup"] = _numbers(rows["subgroup"], self._names["subgroup"])
        compressed = () if spec.padding is None else ("input", "label")
        write_columns(self._folder / f"{self._split}-{self._num_written:05d}.parquet", columns, compressed)
        self._num_written += 1
        if self._moments is not None and len(self._moments.mean):
            self._moments.add(inputs)


def _numbers(texts: pa.ChunkedArray, names: pa.Array) -> NDArray[np.int64]:
    """[N] the places of texts among names, UNLABELLED for what is null."""
    places = pc.fill_null(pc.index_in(texts, names), UNLABELLED)
    return np.asarray(places.to_numpy(), np.int64)
