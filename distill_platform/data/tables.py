"""Parquet and CSV, one file or a folder of them, streamed a batch of rows at a time.

Inputs are every numeric column that is not the label, id, group or split; or, where `input` names one, a column of
encoded images (bytes, or a struct with `bytes`), or of fixed-size lists of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill_platform.data.blocks import Block, ReadOptions, Source, features, require_column, rows_per_block
from distill_platform.data.files import StoredFile, find_files, total_bytes
from distill_platform.data.images import decode_images, image_spec
from distill_platform.data.schema import InputSpec
from distill_platform.errors import DataError

PIECE_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are read, and as what."""

    label: str
    id: str | None
    group: str | None
    split: str | None
    inputs: tuple[str, ...]
    separate: bool
    """Whether each input column is one number of the input; else there is one, of images or lists."""
    encoded: bool
    resize: bool
    input_type: str | None
    """The type of that one column."""

    @property
    def texts(self) -> list[str]:
        """Columns read as text."""
        return [name for name in (self.label, self.id, self.group, self.split) if name is not None]

    @property
    def all(self) -> list[str]:
        """Every column that is read."""
        return [*self.texts, *self.inputs]


@dataclass(frozen=True)
class Piece:
    """A part of a table that one worker reads: a file, or some row groups of it."""

    file: StoredFile
    row_groups: tuple[int, ...] | None = None
    first_row: int = 0


def open_parquet(source: str, options: ReadOptions) -> Source:
    """A `.parquet` file, or a folder of them."""
    files = find_files(source, (".parquet",))
    with files[0].local() as path, _parquet(path, files[0].name) as first:
        columns, spec = _understand(source, first.schema_arrow, options, lambda name: _first_cell(first, name))
    pieces: list[Piece] = []
    num_rows: int | None = 0
    for file in files:
        if file.size_bytes is None:
            pieces.append(Piece(file))
            num_rows = None
            continue
        with file.local() as path, _parquet(path, file.name) as opened:
            pieces += _row_group_pieces(file, opened.metadata)
            num_rows = None if num_rows is None else num_rows + opened.metadata.num_rows
    read = partial(_read_parquet, columns, spec)
    return Source(source, spec, tuple(pieces), read, num_rows, total_bytes(files), has_ids=options.id is not None)


def open_csv(source: str, options: ReadOptions) -> Source:
    """A `.csv` or `.csv.gz` file, or a folder of them, each with a header line."""
    if options.input is not None:
        raise DataError(f"{source}: data.input names a column of images or lists, which CSV cannot hold; use Parquet")
    files = find_files(source, (".csv", ".csv.gz"))
    with files[0].local() as path:
        try:
            with pyarrow.csv.open_csv(path) as first:
                schema = first.schema
        except pa.ArrowInvalid as error:
            raise DataError(f"{source}: {files[0].name} cannot be read as CSV ({error})") from error
    columns, spec = _understand(source, schema, options, None)
    read = partial(_read_csv, columns, spec)
    pieces = tuple(map(Piece, files))
    return Source(source, spec, pieces, read, None, total_bytes(files), has_ids=options.id is not None)


def _understand(source: str, schema: pa.Schema, options: ReadOptions, first_cell: Any) -> tuple[Columns, InputSpec]:
    if options.label is None:
        raise DataError(f"{source}: data.label has to name the label's column; it has {', '.join(schema.names[:20])}")
    roles = {role: getattr(options, role) for role in ("label", "id", "group", "split", "input")}
    for role, name in roles.items():
        if name is not None:
            require_column(source, role, name, schema.names)
    if options.input is None:
        if options.image_size or options.channels:
            raise DataError(f"{source}: data.image_size and data.channels need data.input, the column of images")
        taken = set(roles.values())
        numeric = tuple(field.name for field in schema if field.name not in taken and _is_numeric(field.type))
        if not numeric:
            raise DataError(f"{source}: no numeric column is left for features; name a column of images by data.input")
        spec, inputs, encoded = features(numeric, len(numeric)), numeric, False
    else:
        spec, encoded = _input_column(source, schema.field(options.input), options, first_cell)
        inputs = (options.input,)
    roles.pop("input")
    columns = Columns(
        **roles,
        inputs=inputs,
        separate=options.input is None,
        encoded=encoded,
        resize=options.image_size is not None,
        input_type=str(schema.field(options.input).type) if options.input is not None else None,
    )
    return columns, spec


def _input_column(source: str, field: pa.Field, options: ReadOptions, first_cell: Any) -> tuple[InputSpec, bool]:
    """The form of the inputs in a column, and whether they are encoded images."""
    if _is_encoded(field.type):
        return image_spec(source, options, lambda: _bytes_of(first_cell(field.name)), f"row 0 of {field.name}"), True
    shape: list[int] = []
    kind = field.type
    while pa.types.is_fixed_size_list(kind):
        shape.append(kind.list_size)
        kind = kind.value_type
    if not shape or not _is_numeric(kind) or len(shape) > 3:
        raise DataError(
            f"{source}: column {field.name!r} has the type {field.type}; wanted encoded images (binary), "
            "or fixed-size lists of numbers, nested up to [height][width][channels]"
        )
    if len(shape) == 1 and options.image_size is None:
        return features((), shape[0]), False
    dtype, high = ("uint8", 255.0) if pa.types.is_uint8(kind) else ("float32", np.inf)
    image = (*options.image_size, options.channels or 1) if options.image_size else (*shape, 1)[:3]
    if np.prod(image) != np.prod(shape):
        raise DataError(f"{source}: column {field.name!r} holds {shape} numbers per row; {list(image)} do not fit")
    return InputSpec("image", tuple(image), dtype, 0.0 if dtype == "uint8" else -np.inf, high), False  # type: ignore[arg-type]


def _read_parquet(columns: Columns, spec: InputSpec, piece: Piece) -> Iterator[Block]:
    row = piece.first_row
    try:
        with piece.file.local() as path, _parquet(path, piece.file.name) as opened:
            if fault := _difference(opened.schema_arrow, columns):
                yield _unreadable(piece.file, fault, spec)
                return
            groups = list(piece.row_groups) if piece.row_groups is not None else None
            for batch in opened.iter_batches(rows_per_block(spec), row_groups=groups, columns=columns.all):
                yield _block(pa.table(batch), columns, spec, piece.file.name, row)
                row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        yield _unreadable(piece.file, error, spec)


def _read_csv(columns: Columns, spec: InputSpec, piece: Piece) -> Iterator[Block]:
    convert = pyarrow.csv.ConvertOptions(
        include_columns=columns.all,
        column_types={
            **dict.fromkeys(columns.inputs, pa.float64()),
            **dict.fromkeys(columns.texts, pa.string()),
        },
        strings_can_be_null=True,
    )
    row = 0
    try:
        with piece.file.local() as path, pyarrow.csv.open_csv(path, convert_options=convert) as opened:
            for batch in opened:
                yield _block(pa.table(batch), columns, spec, piece.file.name, row)
                row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        yield _unreadable(piece.file, error, spec)


def _block(table: pa.Table, columns: Columns, spec: InputSpec, file: str, first_row: int) -> Block:
    name = PurePosixPath(file).name
    where = [f"{name} row {row}" for row in range(first_row, first_row + table.num_rows)]
    if columns.separate:
        faults: list[tuple[str, str]] = []
        inputs, kept = _stacked(table, columns.inputs), list(range(table.num_rows))
    else:
        inputs, kept, faults = _from_column(table[columns.inputs[0]], columns, spec, where)
    rows = pa.array(kept, pa.int64())
    texts = {name: _as_text(table[name].take(rows)) for name in columns.texts}
    return Block(
        inputs,
        texts[columns.label],
        [where[row] for row in kept],
        ids=texts.get(columns.id or ""),
        groups=texts.get(columns.group or ""),
        splits=texts.get(columns.split or ""),
        faults=faults,
    )


def _from_column(
    column: pa.ChunkedArray, columns: Columns, spec: InputSpec, where: list[str]
) -> tuple[NDArray[Any], list[int], list[tuple[str, str]]]:
    """Inputs [n, *shape] of one column, the rows they are of, and the faults of the others."""
    present = pc.is_valid(column).to_numpy()
    kept = [int(row) for row in np.flatnonzero(present)]
    faults = [("missing input", where[row]) for row in np.flatnonzero(~present)]
    cells = column.filter(pa.array(present)).combine_chunks()
    if not columns.encoded:
        return _flattened(cells).reshape(-1, *spec.shape).astype(spec.dtype), kept, faults
    encoded = [_bytes_of(cell) for cell in cells]
    images, readable, unreadable = decode_images(encoded, [where[row] for row in kept], spec, columns.resize)
    return images, [kept[number] for number in readable], faults + unreadable


def _stacked(table: pa.Table, names: tuple[str, ...]) -> NDArray[np.float32]:
    """Numeric columns side by side, [n, F]; a missing value is NaN."""
    values = np.empty((table.num_rows, len(names)), np.float32)
    for number, name in enumerate(names):
        column = pc.fill_null(table[name].cast(pa.float64(), safe=False), np.nan)
        values[:, number] = column.to_numpy()
    return values


def _flattened(column: pa.Array) -> NDArray[Any]:
    while pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _as_text(column: pa.ChunkedArray) -> list[str | None]:
    """Cells as text; numbers without a fraction as whole ones, so that 3 and 3.0 are one class."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
        if pc.all(pc.equal(column, pc.floor(column))).as_py() is not False:
            column = column.cast(pa.int64(), safe=False)
    texts: list[str | None] = column.cast(pa.string()).to_pylist()
    return texts


def _bytes_of(cell: Any) -> bytes:
    value = cell.as_py()
    return bytes(value["bytes"] if isinstance(value, dict) else value)


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_encoded(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _difference(schema: pa.Schema, columns: Columns) -> str | None:
    """What keeps a file from being read as the first one of its source."""
    if missing := [name for name in columns.all if name not in schema.names]:
        return f"without the column {', '.join(missing)}"
    kind = str(schema.field(columns.inputs[0]).type)
    if columns.input_type not in (None, kind):
        return f"column {columns.inputs[0]} is {kind}, in the first file {columns.input_type}"
    return None


def _unreadable(file: StoredFile, error: Exception | str, spec: InputSpec) -> Block:
    fault = ("unreadable file", f"{file.name} ({error})")
    return Block(np.empty((0, *spec.shape), spec.dtype), [], [], faults=[fault])


def _parquet(path: Path, name: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except pa.ArrowInvalid as error:
        raise DataError(f"{name} is no Parquet file ({error})") from error


def _first_cell(file: pq.ParquetFile, column: str) -> Any:
    for batch in file.iter_batches(1, columns=[column]):
        return batch.column(0)[0]
    raise DataError(f"column {column!r} has no rows")


def _row_group_pieces(file: StoredFile, metadata: pq.FileMetaData) -> list[Piece]:
    """Neighbouring row groups together, up to PIECE_BYTES."""
    pieces: list[Piece] = []
    groups: list[int] = []
    first_row = row = size = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if groups and size + group.total_byte_size > PIECE_BYTES:
            pieces.append(Piece(file, tuple(groups), first_row))
            groups, first_row, size = [], row, 0
        groups.append(number)
        row, size = row + group.num_rows, size + group.total_byte_size
    return [*pieces, Piece(file, tuple(groups), first_row)]
