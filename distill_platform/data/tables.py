"""What Parquet and CSV share: which columns are what, and a batch of rows as a Block.

Inputs are every numeric column that is not the label, id, group or split; or, where `input` names one, a column of
encoded images (bytes, or a struct with `bytes`), or of fixed-size lists of numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distill_platform.data.blocks import Block, ReadOptions, features, require_column
from distill_platform.data.files import StoredFile
from distill_platform.data.images import decode_images, image_spec
from distill_platform.data.schema import InputSpec
from distill_platform.errors import DataError


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are read, and as what."""

    label: str
    id: str | None
    group: str | None
    split: str | None
    inputs: tuple[str, ...]
    encoded: bool
    resize: bool
    input_type: str | None
    """The type of the one column of images or lists; None where every column is one feature."""

    @property
    def texts(self) -> list[str]:
        """Columns read as text."""
        named = (self.label, self.id, self.group, self.split)
        return list(dict.fromkeys(name for name in named if name is not None))

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


def understand(
    source: str, schema: pa.Schema, options: ReadOptions, first_image: Callable[[str], bytes]
) -> tuple[Columns, InputSpec]:
    """Which columns to read, and the form of the inputs. `first_image` gives the first image of a column.

    Raises DataError for columns that are not there or cannot be what they are named for.
    """
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
        spec, encoded = _input_column(source, schema.field(options.input), options, first_image)
        inputs = (options.input,)
    roles.pop("input")
    columns = Columns(
        **roles,
        inputs=inputs,
        encoded=encoded,
        resize=options.image_size is not None,
        input_type=str(schema.field(options.input).type) if options.input is not None else None,
    )
    return columns, spec


def _input_column(
    source: str, field: pa.Field, options: ReadOptions, first_image: Callable[[str], bytes]
) -> tuple[InputSpec, bool]:
    """The form of the inputs in a column, and whether they are encoded images."""
    if _is_encoded(field.type):
        return image_spec(source, options, lambda: first_image(field.name), f"row 0 of {field.name}"), True
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


def block_of(table: pa.Table, columns: Columns, spec: InputSpec, file: str, first_row: int) -> Block:
    """A batch of rows, the first of them being row `first_row` of `file`."""
    name = PurePosixPath(file).name
    where = [f"{name} row {row}" for row in range(first_row, first_row + table.num_rows)]
    if columns.input_type is None:
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
    if columns.encoded:
        column = encoded_images(column)
    present = pc.is_valid(column).to_numpy()
    kept = [int(row) for row in np.flatnonzero(present)]
    faults = [("missing input", where[row]) for row in np.flatnonzero(~present)]
    cells = column.filter(pa.array(present)).combine_chunks()
    if not columns.encoded:
        return _flattened(cells).reshape(-1, *spec.shape).astype(spec.dtype), kept, faults
    images, readable, unreadable = decode_images(cells.to_pylist(), [where[row] for row in kept], spec, columns.resize)
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
    if column.null_count and not pa.types.is_floating(column.type):  # among floats they become NaN, which is found
        raise DataError(f"{column.null_count} values are missing inside the lists of the input column")
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _as_text(column: pa.ChunkedArray) -> list[str | None]:
    """Cells as text; pyarrow writes 3.0 as 3, so both are one class."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    texts: list[str | None] = column.cast(pa.string()).to_pylist()
    return texts


def encoded_images(column: Any) -> Any:
    """The bytes in a column of images: they may stand in a struct, beside a path."""
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_encoded(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def difference_from_first(schema: pa.Schema, columns: Columns) -> str | None:
    """What keeps a file from being read as the first one of its source."""
    if missing := [name for name in columns.all if name not in schema.names]:
        return f"without the column {', '.join(missing)}"
    kind = str(schema.field(columns.inputs[0]).type)
    if columns.input_type not in (None, kind):
        return f"column {columns.inputs[0]} is {kind}, in the first file {columns.input_type}"
    return None


def unreadable_file(file: StoredFile, error: Exception | str, spec: InputSpec) -> Block:
    """A block of no rows, for a file that stopped being readable."""
    fault = ("unreadable file", f"{file.name} ({error})")
    return Block(np.empty((0, *spec.shape), spec.dtype), [], [], faults=[fault])
