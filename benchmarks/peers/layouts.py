"""Five other ways to keep a teacher's outputs, each written and read as its own project does it, at its best.

All get the same rows, fp16 logits `[N, C]`, and give them back shuffled, in batches `[B, C]` of fp32. None uses worker
processes: what is counted is CPU-seconds, and a worker adds the cost of handing batches over. Where a project offers
several ways to read, the fastest on this work is taken:

mosaicml-streaming  MDS shards of a `bytes` column; StreamingDataset's access by row numbers, `dataset[rows]`, a random
                    permutation a pass. Its own shuffled iteration was 11 times slower, a column `ndarray:float16:100`
                    1.4 times.
litdata             64 MB chunks of numpy rows; StreamingDataset(shuffle=True), iterated. TokensLoader, which maps rows
                    of equal width, was 1.7 times slower.
datasets            one Arrow file, memory-mapped, of FixedSizeList<float16>; with_format("arrow") and `dataset[rows]`,
                    which gathers a batch in one call and lets it be viewed as an array. with_format("torch") was 2.7
                    times slower.
distillkit          its published schema in Parquet: `compressed_logprobs` and `bytepacked_indices`, lists of lists of
                    bytes; read through `datasets` as above, where its trainer takes Python lists (4 times slower). All
                    C classes are kept, so that it holds the same rows: fp16 values, indices packed to the bits that C
                    needs. arcee-ai/DistillKit: distillkit/sample_common.py, distillkit/compression.
tinyvit             a file of fixed-size records (seed, int16 indices, fp16 values), an index by string keys, and a seek
                    and a read for each example. Wu et al. 2022, arXiv:2207.10666; microsoft/Cream, TinyViT/data.

Runs in an environment of its own (requirements.txt), and imports nothing of the platform.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

Rows = np.ndarray[Any, Any]
Pass = Callable[[int], Iterator[Tensor]]
"""Seed -> the batches `[B, C]` fp32 of one pass over all rows, in an order of that seed."""


@dataclass(frozen=True)
class Layout:
    """write: (empty folder, rows `[N, C]` fp16). open: (folder, batch size) -> Pass. distribution: the library."""

    distribution: str
    write: Callable[[Path, Rows], None]
    open: Callable[[Path, int], Pass]


def write_mosaic(folder: Path, rows_NC: Rows) -> None:
    _import_torchvision()
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"logits": "bytes"}) as writer:
        for row in rows_NC:
            writer.write({"logits": row.tobytes()})


def open_mosaic(folder: Path, batch_size: int) -> Pass:
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(folder), batch_size=batch_size)

    def read(seed: int) -> Iterator[Tensor]:
        for rows in _shuffled(len(dataset), batch_size, seed):
            cells = [sample["logits"] for sample in dataset[rows]]
            yield torch.from_numpy(
                np.frombuffer(b"".join(cells), np.float16).reshape(len(cells), -1).astype(np.float32)
            )

    return read


def write_litdata(folder: Path, rows_NC: Rows) -> None:
    from litdata.streaming import Cache

    cache = Cache(str(folder), chunk_bytes="64MB")
    for number, row in enumerate(rows_NC):
        cache._add_item(number, row)
    cache.done()
    cache.merge()


def open_litdata(folder: Path, batch_size: int) -> Pass:
    from litdata import StreamingDataset

    dataset = StreamingDataset(str(folder), shuffle=True, drop_last=False, max_cache_size="100GB")

    def read(seed: int) -> Iterator[Tensor]:
        for rows in _batched(dataset, batch_size):
            yield torch.from_numpy(np.stack(rows)).float()

    return read


def write_datasets(folder: Path, rows_NC: Rows) -> None:
    import pyarrow as pa
    from datasets import Dataset

    cells = pa.FixedSizeListArray.from_arrays(pa.array(rows_NC.reshape(-1)), rows_NC.shape[1])
    Dataset(pa.table({"logits": cells})).save_to_disk(str(folder))


def open_datasets(folder: Path, batch_size: int) -> Pass:
    from datasets import load_from_disk

    dataset = load_from_disk(str(folder)).with_format("arrow")

    def read(seed: int) -> Iterator[Tensor]:
        for rows in _shuffled(len(dataset), batch_size, seed):
            values = dataset[rows]["logits"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1)
            yield torch.from_numpy(values.astype(np.float32))

    return read


def write_distillkit(folder: Path, rows_NC: Rows) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    num_classes = rows_NC.shape[1]
    packed = _pack(np.arange(num_classes), _index_bits(num_classes))
    cells = pa.list_(pa.list_(pa.uint8()))
    schema = pa.schema({"compressed_logprobs": cells, "bytepacked_indices": cells})
    with pq.ParquetWriter(folder / "data_0.parquet", schema) as writer:
        for start in range(0, len(rows_NC), 1000):
            values = [[list(row.tobytes())] for row in rows_NC[start : start + 1000]]
            columns = [pa.array(values, cells), pa.array([[packed.tolist()]] * len(values), cells)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    (folder / "classes.json").write_text(json.dumps(num_classes))


def open_distillkit(folder: Path, batch_size: int) -> Pass:
    from datasets import Dataset

    num_classes = json.loads((folder / "classes.json").read_text())
    parquet = str(folder / "data_0.parquet")
    dataset = Dataset.from_parquet(parquet, cache_dir=str(folder / "arrow")).with_format("arrow")

    def bytes_of(column: Any, num_rows: int) -> Rows:
        return column.combine_chunks().flatten().flatten().to_numpy().reshape(num_rows, -1)  # type: ignore[no-any-return]

    def read(seed: int) -> Iterator[Tensor]:
        for rows in _shuffled(len(dataset), batch_size, seed):
            table = dataset[rows]
            values = bytes_of(table["compressed_logprobs"], len(rows)).view(np.float16).astype(np.float32)
            packed = bytes_of(table["bytepacked_indices"], len(rows))
            indices = _unpack(packed, _index_bits(num_classes), num_classes)
            yield _scattered(torch.from_numpy(indices), torch.from_numpy(values), num_classes)

    return read


def write_tinyvit(folder: Path, rows_NC: Rows) -> None:
    num_classes = rows_NC.shape[1]
    indices = np.arange(num_classes, dtype=np.int16).tobytes()
    with (folder / "values.bin").open("wb") as file:
        file.writelines(b"\0\0\0\0" + indices + row.tobytes() for row in rows_NC)
    keys = [f"n{number % 1000:08d}/n{number % 1000:08d}_{number}.JPEG" for number in range(len(rows_NC))]
    (folder / "keys.txt").write_text("\n".join(keys))
    (folder / "classes.json").write_text(json.dumps(num_classes))


def open_tinyvit(folder: Path, batch_size: int) -> Pass:
    num_classes = json.loads((folder / "classes.json").read_text())
    keys = (folder / "keys.txt").read_text().split("\n")
    places = {key: number for number, key in enumerate(keys)}
    record_bytes = 4 + num_classes * 4
    file = (folder / "values.bin").open("rb", buffering=0)

    def item(key: str) -> tuple[Rows, Rows]:
        file.seek(places[key] * record_bytes)
        record = file.read(record_bytes)
        indices = np.frombuffer(record, np.int16, num_classes, offset=4)
        return indices, np.frombuffer(record, np.float16, num_classes, offset=4 + num_classes * 2)

    def read(seed: int) -> Iterator[Tensor]:
        for rows in _shuffled(len(keys), batch_size, seed):
            items = [item(keys[row]) for row in rows]
            indices = torch.from_numpy(np.stack([indices for indices, _ in items])).long()
            values = torch.from_numpy(np.stack([values for _, values in items])).float()
            yield _scattered(indices, values, num_classes)

    return read


LAYOUTS = {
    "mosaicml-streaming": Layout("mosaicml-streaming", write_mosaic, open_mosaic),
    "litdata": Layout("litdata", write_litdata, open_litdata),
    "datasets": Layout("datasets", write_datasets, open_datasets),
    "distillkit layout": Layout("datasets", write_distillkit, open_distillkit),
    "tinyvit layout": Layout("numpy", write_tinyvit, open_tinyvit),
}


def _shuffled(num_rows: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed))
    return (rows.tolist() for rows in order.split(batch_size))


def _batched(samples: Iterable[Any], batch_size: int) -> Iterator[list[Any]]:
    """Whole passes only: litdata's iterator starts again when it is asked beyond its end."""
    batch = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _index_bits(num_classes: int) -> int:
    return max(1, (num_classes - 1).bit_length())


def _pack(indices: Rows, bits: int) -> Rows:
    """Indices `[K]` -> bytes, `bits` of each, least significant bit first."""
    return np.packbits((indices[:, None] >> np.arange(bits)) & 1)


def _unpack(packed: Rows, bits: int, count: int) -> Rows:
    """Bytes `[B, …]` -> indices `[B, count]`."""
    places = np.unpackbits(packed, axis=1, count=bits * count).reshape(len(packed), count, bits)
    return places.astype(np.int64) @ (1 << np.arange(bits))


def _scattered(indices_BK: Tensor, values_BK: Tensor, num_classes: int) -> Tensor:
    return torch.zeros(len(values_BK), num_classes).scatter_(1, indices_BK, values_BK)


def _import_torchvision() -> None:
    """streaming imports torchvision for its image columns; PyPI's, beside a torch without CUDA, fails to load its own
    operators and then trips over their absence. Nothing here touches an image: that they have names is enough."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
