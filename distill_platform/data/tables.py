"""What Parquet and CSV share: which columns are what, and the form of the inputs in them.

Inputs are every numeric column that is not the label, id, group, subgroup or split; or, where `input` names one, a
column of encoded images (bytes, or a struct with `bytes`), of fixed-size lists of numbers, of text, or, with a sample
rate, of lists of samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_platform.data.blocks import ReadOptions, features, require_column
from distill_platform.data.files import StoredFile
from distill_platform.data.images import image_spec
from distill_platform.data.schema import InputSpec
from distill_platform.data.sounds import longest_list, sound_spec
from distill_platform.data.texts import longest_text, text_spec
from distill_platform.errors import DataError

Form = Literal["features", "images", "numbers", "text", "audio", "documents"]
"""How inputs stand in a table: a column for each feature; else one column, of what this says."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are read, and as what."""

    label: str | None
    id: str | None
    group: str | None
    subgroup: str | None
    split: str | None
    inputs: tuple[str, ...]
    form: Form
    resize: bool
    input_type: str | None
    """The type of the one input column; None where every column is one feature."""

    @property
    def texts(self) -> list[str]:
        """Columns read as text, the input left out."""
        named = (self.label, self.id, self.group, self.subgroup, self.split)
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


class Glimpses(Protocol):
    """What of a table's rows has to be seen to know the form of its inputs."""

    def first_image(self, column: str) -> bytes:
        """The first one of a column."""

    def longest(self, column: str, of: Callable[[Any], int]) -> int:
        """The greatest number that `of` gives for a part of a column, over all files."""


_ROLES = ("label", "id", "group", "subgroup", "split")
_USED_BY: dict[Form, tuple[str, ...]] = {
    "images": (*_ROLES, "image_size", "channels"),
    "numbers": (*_ROLES, "image_size", "channels"),
    "text": (*_ROLES, "length"),
    "audio": (*_ROLES, "length", "sample_rate"),
    "documents": ("split", "length", "tokenizer"),
}
"""Options that each form of an input column has a use for."""


def understand(source: str, schema: pa.Schema, options: ReadOptions, rows: Glimpses) -> tuple[Columns, InputSpec]:
    """Which columns to read, and the form of the inputs; that of documents is their tokenizer's to say, and not here.

    Raises DataError for columns that are not there or cannot be what they are named for.
    """
    if options.labelled and options.label is None and options.tokenizer is None:
        raise DataError(
            f"{source}: data.label has to name the label's column; it has {', '.join(schema.names[:20])}. To learn "
            "the text itself, name data.input and data.tokenizer"
        )
    roles = {role: getattr(options, role) for role in _ROLES}
    read = roles if options.labelled else {**dict.fromkeys(roles), "group": options.group}
    for role, name in {**read, "input": options.input}.items():
        if name is not None:
            require_column(source, role, name, schema.names)
    if options.input is None:
        options.refuse_all_but(f"{source}, without data.input, the column of images, texts or sounds,", *_ROLES)
        taken = set(roles.values())
        numeric = tuple(field.name for field in schema if field.name not in taken and _is_numeric(field.type))
        if not numeric:
            raise DataError(
                f"{source}: no numeric column is left for features; name a column of images, texts or sounds by "
                "data.input"
            )
        columns = Columns(**read, inputs=numeric, form="features", resize=False, input_type=None)
        return columns, features(numeric, len(numeric))
    column = schema.field(options.input)
    form = _form(source, column, options)
    options.refuse_all_but(f"{source}, whose input is a column of {form},", "input", *_USED_BY[form])
    columns = Columns(
        **read,
        inputs=(options.input,),
        form=form,
        resize=options.image_size is not None,
        input_type=str(column.type),
    )
    return columns, _column_spec(source, column, form, options, rows)


def _form(source: str, column: pa.Field, options: ReadOptions) -> Form:
    if _is_encoded(column.type):
        return "images"
    if _is_text(column.type):
        return "documents" if options.tokenizer is not None else "text"
    kind, depth = column.type, 0
    while pa.types.is_fixed_size_list(kind):
        kind, depth = kind.value_type, depth + 1
    if options.sample_rate is not None and depth == 1 and _is_sampled(kind):
        return "audio"
    if 0 < depth <= 3 and _is_numeric(kind) and options.sample_rate is None:
        return "numbers"
    if _is_list(kind) and not depth and _is_sampled(kind.value_type):
        if options.sample_rate is None:
            raise DataError(
                f"{source}: column {column.name!r} holds lists of any length ({column.type}), as of sounds; give their "
                "samples per second by data.sample_rate"
            )
        return "audio"
    raise DataError(
        f"{source}: column {column.name!r} has the type {column.type}; wanted encoded images (binary), text, "
        "fixed-size lists of numbers, nested up to [height][width][channels], or, with data.sample_rate, lists of "
        "int16 or real samples"
    )


def _column_spec(source: str, column: pa.Field, form: Form, options: ReadOptions, rows: Glimpses) -> InputSpec:
    """The form of the inputs in a column."""
    name = column.name
    if form == "images":
        return image_spec(source, options, lambda: rows.first_image(name), f"row 0 of {name}")
    if form == "text":
        return text_spec(source, options.length, lambda: rows.longest(name, longest_text))
    if form == "audio":
        assert options.sample_rate is not None
        return sound_spec(source, options.length or rows.longest(name, longest_list), options.sample_rate)
    if form == "documents":
        return InputSpec("tokens", (0,), "int32", 0.0, 0.0)
    shape: list[int] = []
    kind = column.type
    while pa.types.is_fixed_size_list(kind):
        shape.append(kind.list_size)
        kind = kind.value_type
    if len(shape) == 1 and options.image_size is None:
        return features((), shape[0])
    dtype, high = ("uint8", 255.0) if pa.types.is_uint8(kind) else ("float32", np.inf)
    image = (*options.image_size, options.channels or 1) if options.image_size else (*shape, 1)[:3]
    if np.prod(image) != np.prod(shape):
        raise DataError(f"{source}: column {name!r} holds {shape} numbers per row; {list(image)} do not fit")
    return InputSpec("image", tuple(image), dtype, 0.0 if dtype == "uint8" else -np.inf, high)  # type: ignore[arg-type]


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_sampled(kind: pa.DataType) -> bool:
    return bool(pa.types.is_int16(kind) or pa.types.is_floating(kind))


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


def encoded_images(column: Any) -> Any:
    """The bytes in a column of images: they may stand in a struct, beside a path."""
    return pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
