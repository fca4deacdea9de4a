"""Fixed-width columns: Parquet at rest, memory maps in use. One layout for examples and for a teacher's outputs.

At rest a column of `[N, …]` values is a fixed-size binary column, uncompressed, with page checksums: the layout that
moves several times more payload per CPU-second than lists of floats. Element type and shape stand in
the schema's metadata, so that any Parquet reader can decode it: `np.frombuffer(cell, dtype).reshape(shape)`.

In use the columns of many shards are decoded once per machine into one raw file each, verified on the way, and every
process maps that file: shuffled reads then cost what `index_select` on memory costs.
"""

from __future__ import annotations

import json
import math
import mmap
import tempfile
import warnings
import weakref
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from io import RawIOBase
from itertools import islice
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
from distill_platform.scratch import Held, hold

COLUMNS_FORMAT = 1
ROW_GROUP_ROWS = 65_536
FETCHED_AHEAD = 3
_LAYOUT = b"distill_platform.columns"


def write_columns(
    path: Path,
    columns: Mapping[str, np.ndarray[Any, Any] | Sequence[str]],
    compressed: Collection[str] = (),
    dictionary: Collection[str] = (),
) -> None:
    """Write one Parquet shard. Arrays are `[N, …]` of any fixed-width type; sequences of str become text columns.

    Columns named in `compressed` are compressed with zstd, those in `dictionary` hold each of their values once: both
    cost time where values hardly repeat.
    """
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
        compression={name: "zstd" if name in compressed else "none" for name in columns},
        use_dictionary=[name for name in columns if name in dictionary] or False,
        write_statistics=False,
        write_page_checksum=True,
    )


def read_columns(path: Path, names: Iterable[str] | None = None) -> dict[str, Any]:
    """A shard's columns: numpy arrays `[N, …]`, and lists of str for text. Page checksums are verified.

    Raises Corrupt for a page that is not what was written.
    """
    with _open(path) as file, _page_errors(path):
        layout = _layout(file, path)
        table = file.read(columns=list(names) if names is not None else None)
    return {name: _decode(table[name], layout.get(name)) for name in table.column_names}


def count_rows(shard: bytes) -> int:
    """Rows of a shard that is in memory."""
    return int(pq.ParquetFile(pa.BufferReader(shard)).metadata.num_rows)


def map_columns(artifact: Artifact, shards: Sequence[str], names: Sequence[str]) -> dict[str, Tensor]:
    """Columns of all shards, one after the other, as memory-mapped tensors `[N, …]` that must not be written to.

    Shards are fetched and verified, and columns decoded, once per machine: some are fetched while another is decoded,
    and nothing but the columns stays. Processes share the pages; scratch keeps a column as long as its tensor lives.

    Raises Corrupt for bytes that are not those committed, FormatError for a layout of another version.
    """
    return {name: _map(column) for name, column in raw_columns(artifact, shards, names).items()}


@dataclass(frozen=True)
class RawColumn:
    """Values `[N, …]` as they stand in a raw file, row after row, from its first byte on.

    held: keeps the file in scratch, until it is released.
    """

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    held: Held

    @classmethod
    def of(cls, held: Held) -> RawColumn:
        """That of a scratch entry: a folder with `values`, and `layout.json` that says what they are."""
        try:
            layout = json.loads((held.path / "layout.json").read_text())
        except (OSError, ValueError) as error:
            raise Corrupt(f"{held.path} in scratch is damaged ({error}); delete it, and it is made again") from error
        dtype = torch.from_numpy(np.empty(0, np.dtype(layout["dtype"]))).dtype
        return cls(held.path / "values", dtype, (layout["rows"], *layout["shape"]), held)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def raw_columns(artifact: Artifact, shards: Sequence[str], names: Sequence[str]) -> dict[str, RawColumn]:
    """As `map_columns`: the files themselves, for reading parts of columns that are larger than memory."""
    assert shards, "no shards to map"
    hashes = [artifact.sha256(shard) for shard in shards]
    entries = {name: f"columns/{fingerprint([COLUMNS_FORMAT, name, hashes])}" for name in names}
    wanted = {entry: name for name, entry in entries.items()}

    def decode(folders: Mapping[str, Path]) -> None:
        making = next(iter(folders.values())).parent
        with (
            tempfile.TemporaryDirectory(dir=making) as fetched,
            closing(fetched_ahead(artifact, shards, Path(fetched))) as paths,
        ):
            _decode_shards(paths, {wanted[entry]: folder for entry, folder in folders.items()})

    held = hold(list(wanted), decode, artifact.size_bytes(*shards))
    return {name: RawColumn.of(held[entry]) for name, entry in entries.items()}


def fetched_ahead(artifact: Artifact, shards: Sequence[str], folder: Path) -> Generator[Path, None, None]:
    """Local paths of the shards in order, verified, the next FETCHED_AHEAD of them on their way.

    What had to be downloaded lies in `folder`, and goes when the next one is asked for.
    """
    with ThreadPoolExecutor(FETCHED_AHEAD) as pool:
        rest = iter(shards)
        waiting = deque(pool.submit(artifact.local_copy, shard, folder) for shard in islice(rest, FETCHED_AHEAD))
        while waiting:
            path = waiting.popleft().result()
            waiting.extend(pool.submit(artifact.local_copy, shard, folder) for shard in islice(rest, 1))
            yield path
            if path.parent == folder:
                path.unlink(missing_ok=True)


def _decode_shards(paths: Iterable[Path], folders: Mapping[str, Path]) -> None:
    """Write `<folder>/values` and `<folder>/layout.json` of each column."""
    names, rows = list(folders), 0
    layouts: dict[str, Any] = {}
    with ExitStack() as stack:
        files = {}
        for name, folder in folders.items():
            folder.mkdir()
            files[name] = stack.enter_context((folder / "values").open("wb", buffering=0))
        for path in paths:
            with _open(path) as shard, _page_errors(path):
                layout = {name: _layout(shard, path)[name] for name in names}
                if (layouts := layouts or layout) != layout:
                    raise FormatError(f"{path} has the columns {layout}, the shards before it have {layouts}")
                for group in range(shard.num_row_groups):
                    table = shard.read_row_group(group, columns=names)
                    rows += len(table)
                    for name in names:
                        for chunk in table[name].chunks:
                            _write_all(files[name], _cells(chunk))
    for name, folder in folders.items():
        (folder / "layout.json").write_text(json.dumps({**layouts[name], "rows": rows}))


def _write_all(file: RawIOBase, data: memoryview) -> None:
    while data:
        written = file.write(data)
        data = data[written:]


def _map(column: RawColumn) -> Tensor:
    """A column as a tensor over a shared, read-only map: no process can change another's values, and pages count once
    on the machine and against nobody's limit on data."""
    if not math.prod(column.shape):
        column.held.release()
        return torch.empty(column.shape, dtype=column.dtype)
    with column.path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    weakref.finalize(mapped, column.held.release)
    with warnings.catch_warnings():  # torch has no read-only tensors, and says so
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(mapped, dtype=column.dtype).reshape(column.shape)


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


@contextmanager
def _page_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of the page
            raise
        raise Corrupt(f"{path}: a page does not hold what was written ({error}); restore the file") from error


def _decode(column: pa.ChunkedArray, layout: dict[str, Any] | None) -> Any:
    if layout is None:
        return column.to_pylist()
    dtype, shape = np.dtype(layout["dtype"]), layout["shape"]
    parts = [np.frombuffer(_cells(chunk), dtype).reshape(len(chunk), *shape) for chunk in column.chunks]
    return np.concatenate(parts) if parts else np.empty((0, *shape), dtype)


def _cells(chunk: pa.Array) -> memoryview:
    """The bytes of a fixed-size binary array, cell after cell."""
    if not len(chunk):
        return memoryview(b"")
    width = chunk.type.byte_width
    return memoryview(chunk.buffers()[1])[chunk.offset * width : (chunk.offset + len(chunk)) * width]
