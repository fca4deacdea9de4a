"""Fixed-width columns: Parquet at rest, memory maps in use. One layout for examples and for a teacher's outputs.

At rest a column of `[N, …]` values is a fixed-size binary column, uncompressed, with page checksums: the layout that
moves several times more payload per CPU-second than lists of floats. Element type and shape stand in
the schema's metadata, so that any Parquet reader can decode it: `np.frombuffer(cell, dtype).reshape(shape)`.

In use the columns of many shards are decoded once per machine into one raw file each, verified on the way, and every
process maps that file: shuffled reads then cost what `index_select` on memory costs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from distill_platform.artifact import Artifact
from distill_platform.errors import Corrupt, FormatError
from distill_platform.fingerprint import fingerprint
from distill_platform.scratch import make_once

COLUMNS_FORMAT = 1
ROW_GROUP_ROWS = 65_536
_LAYOUT = b"distill_platform.columns"


def write_columns(path: Path, columns: Mapping[str, np.ndarray[Any, Any] | Sequence[str]]) -> None:
    """Write one Parquet shard. Arrays are `[N, …]` of any fixed-width type; sequences of str become text columns."""
    arrays: dict[str, pa.Array] = {}
    layout: dict[str, dict[str, Any]] = {}
    for name, values in columns.items():
        if isinstance(values, np.ndarray):
            arrays[name] = _as_fixed_binary(values)
            layout[name] = {"dtype": values.dtype.str, "shape": list(values.shape[1:])}
        else:
            arrays[name] = pa.array(values, pa.string())
    metadata = {_LAYOUT: json.dumps({"format": COLUMNS_FORMAT, "columns": layout}).encode()}
    table = pa.table(arrays).replace_schema_metadata(metadata)
    pq.write_table(
        table,
        path,
        row_group_size=ROW_GROUP_ROWS,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )


def read_columns(path: Path, names: Iterable[str] | None = None) -> dict[str, Any]:
    """A shard's columns: numpy arrays `[N, …]`, and lists of str for text. Page checksums are verified."""
    with _open(path) as file:
        layout = _layout(file, path)
        table = file.read(columns=list(names) if names is not None else None)
    return {name: _decode(table[name], layout.get(name)) for name in table.column_names}


def count_rows(shard: bytes) -> int:
    """Rows of a shard that is in memory."""
    return int(pq.ParquetFile(pa.BufferReader(shard)).metadata.num_rows)


def map_columns(artifact: Artifact, shards: Sequence[str], names: Sequence[str]) -> dict[str, Tensor]:
    """Columns of all shards, one after the other, as memory-mapped tensors `[N, …]`.

    Shards are fetched and verified, and columns decoded, once per machine; processes share the pages.

    Raises Corrupt for bytes that are not those committed, FormatError for a layout of another version.
    """
    hashes = [artifact.sha256(shard) for shard in shards]
    fetch = cache(artifact.fetch)  # each shard is fetched and hashed once, however many columns are decoded from it
    return {name: _map_column(fetch, shards, hashes, name) for name in names}


def _map_column(fetch: Callable[[str], Path], shards: Sequence[str], hashes: list[str], name: str) -> Tensor:
    def decode(folder: Path) -> None:
        folder.mkdir()
        rows, layout = 0, None
        with (folder / "values").open("wb") as raw:
            for shard in shards:
                path = fetch(shard)
                with _open(path) as file:
                    layout = _layout(file, path)[name]
                    for group in range(file.num_row_groups):
                        column = file.read_row_group(group, columns=[name])[name]
                        for chunk in column.chunks:
                            values = _decode_chunk(chunk, layout)
                            values.tofile(raw)
                            rows += len(values)
        assert layout is not None
        (folder / "layout.json").write_text(json.dumps({**layout, "rows": rows}))

    folder = make_once(f"columns/{fingerprint([COLUMNS_FORMAT, name, hashes])}", decode)
    layout = json.loads((folder / "layout.json").read_text())
    dtype, shape = np.dtype(layout["dtype"]), (layout["rows"], *layout["shape"])
    size = int(np.prod(shape))
    if size == 0:
        return torch.from_numpy(np.empty(shape, dtype))
    return torch.from_file(str(folder / "values"), size=size, dtype=_torch_type(dtype)).reshape(shape)


def _torch_type(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _as_fixed_binary(values: np.ndarray[Any, Any]) -> pa.Array:
    contiguous = np.ascontiguousarray(values)
    width = contiguous.itemsize * int(np.prod(contiguous.shape[1:]))
    return pa.Array.from_buffers(pa.binary(width), len(contiguous), [None, pa.py_buffer(contiguous)])


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
    except pa.ArrowInvalid as error:
        raise Corrupt(f"{path} is not a Parquet file ({error})") from error


def _layout(file: pq.ParquetFile, path: Path) -> dict[str, Any]:
    layout = json.loads((file.schema_arrow.metadata or {}).get(_LAYOUT, b"{}"))
    if layout.get("format") != COLUMNS_FORMAT:
        raise FormatError(f"{path} has column layout {layout.get('format')!r}, this release reads {COLUMNS_FORMAT}")
    return dict(layout["columns"])


def _decode(column: pa.ChunkedArray, layout: dict[str, Any] | None) -> Any:
    if layout is None:
        return column.to_pylist()
    if not column.chunks:
        return np.empty((0, *layout["shape"]), np.dtype(layout["dtype"]))
    return np.concatenate([_decode_chunk(chunk, layout) for chunk in column.chunks])


def _decode_chunk(chunk: pa.Array, layout: dict[str, Any]) -> np.ndarray[Any, Any]:
    width = chunk.type.byte_width
    data = chunk.buffers()[1]
    raw = memoryview(data)[chunk.offset * width : (chunk.offset + len(chunk)) * width]
    return np.frombuffer(raw, np.dtype(layout["dtype"])).reshape(len(chunk), *layout["shape"])
