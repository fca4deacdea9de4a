"""Arrays that numpy.savez wrote: one file, read whole."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from distill_platform.data.blocks import (
    Block,
    ReadOptions,
    Source,
    features,
    in_blocks,
    require_column,
    rows_per_block,
)
from distill_platform.data.files import StoredFile, find_files
from distill_platform.data.schema import InputSpec
from distill_platform.data.texts import longest_text, text_inputs, text_spec
from distill_platform.errors import DataError

_ROLES = ("label", "id", "group", "subgroup", "split", "input")


def open_npz(source: str, options: ReadOptions) -> Source:
    """`FILE.npz`: arrays of one length, by default x, y, and id and group where they are there."""
    options.refuse_all_but(source, "label", "id", "group", "subgroup", "split", "input", "length")
    file, *more = find_files(source, (".npz",))
    if more:
        raise DataError(f"{source} holds {len(more) + 1} .npz files; name the one to read")
    with file.local() as path:
        try:
            with zipfile.ZipFile(path) as archive:
                heads = {name.removesuffix(".npy"): _npy_header(archive, name) for name in archive.namelist()}
        except (zipfile.BadZipFile, ValueError) as error:
            raise DataError(f"{source} cannot be read as .npz ({error}); write it with numpy.savez") from error
    names = {"input": options.input or "x", "group": options.group or ("group" if "group" in heads else None)}
    if options.labelled:
        names |= {"label": options.label or "y", "split": options.split, "subgroup": options.subgroup}
        names["id"] = options.id or ("id" if "id" in heads else None)
    for role, name in names.items():
        if name is not None:
            require_column(source, role, name, heads)
    lengths = {name: heads[name][0][:1] for name in names.values() if name is not None}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{source}: arrays differ in length: {', '.join(f'{n} {v}' for n, v in lengths.items())}")
    shape, dtype = heads[str(names["input"])]
    if dtype.kind == "U" and len(shape) == 1:
        spec = text_spec(source, options.length, partial(_longest, file, str(names["input"])))
    else:
        options.refuse_all_but(f"{source}, whose {names['input']} is no text,", *_ROLES)
        spec = _array_spec(source, str(names["input"]), shape, dtype)
    return Source(
        source,
        spec,
        (file,),
        partial(_read_npz, names, spec),
        shape[0],
        has_ids=names.get("id") is not None,
        count_classes=partial(_count_npz_classes, file, names.get("label")),
    )


def _array_spec(source: str, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> InputSpec:
    if len(shape) == 2 and dtype.kind in "fiub":
        return features((), shape[1])
    if len(shape) in (3, 4) and dtype == np.uint8:
        return InputSpec("image", (*shape[1:], 1)[:3], "uint8", 0.0, 255.0)
    if len(shape) in (3, 4) and dtype.kind == "f":
        return InputSpec("image", (*shape[1:], 1)[:3], "float32", -np.inf, np.inf)
    raise DataError(
        f"{source}: {name} is {dtype} of shape {list(shape)}; wanted [N, F] numbers, images [N, H, W] or "
        "[N, H, W, C] as uint8 or float32, or [N] texts"
    )


def _npy_header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    with archive.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    return shape, dtype


def _read_npz(names: dict[str, str | None], spec: InputSpec, file: StoredFile) -> Iterator[Block]:
    with file.local() as path:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                columns = {role: arrays[name] for role, name in names.items() if name is not None}
        except (ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            yield Block(
                np.empty((0, *spec.shape), spec.dtype), [], [], faults=[("unreadable file", f"{file.name} ({error})")]
            )
            return
    texts = {role: _texts(array) for role, array in columns.items() if role != "input"}
    labels = texts.pop("label", [None] * len(columns["input"]))
    others: dict[str, Any] = {f"{role}s": values for role, values in texts.items()}
    if spec.kind == "text":
        yield from _in_text_blocks(spec, columns["input"], labels, others)
        return
    yield from in_blocks(spec, columns["input"].reshape(-1, *spec.shape), labels, "row {}".format, **others)


def _in_text_blocks(
    spec: InputSpec, texts: NDArray[np.str_], labels: list[Any], others: dict[str, Any]
) -> Iterator[Block]:
    step = rows_per_block(spec)
    for start in range(0, len(texts), step):
        where = [f"row {row}" for row in range(start, min(start + step, len(texts)))]
        read = text_inputs(pa.array(texts[start : start + step].tolist(), pa.string()), where, spec)
        rows = [start + row for row in read.kept]
        block = Block(
            read.inputs,
            [labels[row] for row in rows],
            [where[row] for row in read.kept],
            cut=read.cut,
            faults=read.faults,
        )
        picked: dict[str, Any] = {name: [values[row] for row in rows] for name, values in others.items()}
        yield replace(block, **picked)


def _longest(file: StoredFile, name: str) -> int:
    """Bytes of the longest text of an array."""
    with file.local() as path, np.load(path, allow_pickle=False) as arrays:
        return longest_text(pa.array(arrays[name].tolist(), pa.string()))


def _count_npz_classes(file: StoredFile, label: str | None) -> int | None:
    if label is None:
        return None
    with file.local() as path, np.load(path, allow_pickle=False) as arrays:
        return len(np.unique(arrays[label]))


def _texts(array: NDArray[Any]) -> list[Any]:
    """Values as text; None for NaN and for empty text. Whole floats lose their fraction, so that 3.0 is 3."""
    if array.dtype.kind == "f":
        return [None if math.isnan(one) else str(int(one)) if one.is_integer() else str(one) for one in array.tolist()]
    return [None if one == "" else str(one) for one in array.tolist()]
