"""Where examples come from. A source is one line of text; its beginning or its ending says how it is read.

    sklearn:digits | sklearn:breast_cancer | sklearn:wine        scikit-learn's bundled sets
    idx:FOLDER_URI                                               the MNIST family, .gz or not, with its own test split
    images:FOLDER_URI                                            one subfolder per class
    FILE.npz                                                     arrays x, y, and perhaps id, group, split
    FILE or FOLDER of .parquet, .csv or .csv.gz                  tables

Folders and files are local or on S3. To add a source: a function that opens it, and a line in SOURCES.
"""

from __future__ import annotations

import difflib
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill_platform.data.blocks import Block, ReadOptions, Source, features, in_blocks, require_column
from distill_platform.data.delimited import open_csv
from distill_platform.data.files import StoredFile, digest_of, digest_of_arrays, find_files
from distill_platform.data.idx import open_idx
from distill_platform.data.images import IMAGE_SUFFIXES, open_image_folder
from distill_platform.data.parquet import open_parquet
from distill_platform.data.schema import InputSpec
from distill_platform.errors import DataError
from distill_platform.storage import open_storage

_SUFFIXES = {".npz": "npz", ".parquet": "parquet", ".csv": "csv", ".csv.gz": "csv"}
_SKLEARN = ("digits", "breast_cancer", "wine")


def open_source(source: str, options: ReadOptions) -> Source:
    """Find out what a source holds, reading as little as possible.

    Raises DataError if it is not there, or the options do not fit it.
    """
    return SOURCES[_scheme(source)](source, options)


def content_digest(source: str) -> str:
    """sha256 over the bytes of a source's files (names included), or of its arrays."""
    scheme = _scheme(source)
    if scheme == "sklearn":
        bunch = _sklearn(source)
        return digest_of_arrays([np.ascontiguousarray(array).tobytes() for array in (bunch.data, bunch.target)])
    suffixes = {"images": IMAGE_SUFFIXES, "csv": (".csv", ".csv.gz"), "idx": ("-ubyte", "-ubyte.gz")}
    uri = source.removeprefix(f"{scheme}:")
    files = digest_of(find_files(uri, suffixes.get(scheme, (f".{scheme}",))))
    return digest_of_arrays([part.encode() for file in files for part in file])


def _scheme(source: str) -> str:
    prefix = source.partition(":")[0]
    if prefix in ("sklearn", "idx", "images"):
        return prefix
    for suffix, scheme in _SUFFIXES.items():
        if source.lower().endswith(suffix):
            return scheme
    kinds = {scheme for name in open_storage(source).list() for end, scheme in _SUFFIXES.items() if name.endswith(end)}
    if len(kinds) == 1:
        return kinds.pop()
    if kinds:
        raise DataError(
            f"{source} holds files of several kinds, {' and '.join(sorted(kinds))}; name one file or folder"
        )
    raise DataError(
        f"{source}: nothing there that can be read as examples; wanted sklearn:NAME, idx:FOLDER, images:FOLDER, "
        "or a file or folder of .npz, .parquet, .csv or .csv.gz"
    )


def _open_sklearn(source: str, options: ReadOptions) -> Source:
    options.refuse_all_but(source)
    bunch = _sklearn(source)
    if source == "sklearn:digits":
        spec = InputSpec("image", (8, 8, 1), "uint8", 0.0, 16.0)
    else:
        spec = features([str(name) for name in bunch.feature_names], bunch.data.shape[1])
    names = tuple(str(name) for name in bunch.target_names)
    return Source(
        source,
        spec,
        (None,),
        partial(_read_sklearn, source, spec),
        len(bunch.data),
        class_names=names,
        count_classes=lambda: len(names),
    )


def _read_sklearn(source: str, spec: InputSpec, _: None) -> Iterator[Block]:
    bunch = _sklearn(source)
    labels = [str(bunch.target_names[label]) for label in bunch.target]
    return in_blocks(spec, bunch.data.reshape(-1, *spec.shape), labels, "row {}".format)


def _sklearn(source: str) -> Any:
    import sklearn.datasets

    name = source.removeprefix("sklearn:")
    if name not in _SKLEARN:
        close = difflib.get_close_matches(name, _SKLEARN, n=1)
        raise DataError(
            f"{source} is not known; {f'did you mean {close[0]}? ' if close else ''}Known: {', '.join(_SKLEARN)}"
        )
    return getattr(sklearn.datasets, f"load_{name}")()


def _open_npz(source: str, options: ReadOptions) -> Source:
    options.refuse_all_but(source, "label", "id", "group", "split", "input")
    file, *more = find_files(source, (".npz",))
    if more:
        raise DataError(f"{source} holds {len(more) + 1} .npz files; name the one to read")
    with file.local() as path:
        try:
            with zipfile.ZipFile(path) as archive:
                heads = {name.removesuffix(".npy"): _npy_header(archive, name) for name in archive.namelist()}
        except (zipfile.BadZipFile, ValueError) as error:
            raise DataError(f"{source} cannot be read as .npz ({error}); write it with numpy.savez") from error
    names = {"input": options.input or "x", "label": options.label or "y", "split": options.split}
    names |= {role: getattr(options, role) or (role if role in heads else None) for role in ("id", "group")}
    for role, name in names.items():
        if name is not None:
            require_column(source, role, name, heads)
    lengths = {name: heads[name][0][:1] for name in names.values() if name is not None}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{source}: arrays differ in length: {', '.join(f'{n} {v}' for n, v in lengths.items())}")
    shape, dtype = heads[str(names["input"])]
    spec = _array_spec(source, str(names["input"]), shape, dtype)
    return Source(
        source,
        spec,
        (file,),
        partial(_read_npz, names, spec),
        shape[0],
        has_ids=names["id"] is not None,
        count_classes=partial(_count_npz_classes, file, str(names["label"])),
    )


def _array_spec(source: str, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> InputSpec:
    if len(shape) == 2 and dtype.kind in "fiub":
        return features((), shape[1])
    if len(shape) in (3, 4) and dtype == np.uint8:
        return InputSpec("image", (*shape[1:], 1)[:3], "uint8", 0.0, 255.0)
    if len(shape) in (3, 4) and dtype.kind == "f":
        return InputSpec("image", (*shape[1:], 1)[:3], "float32", -np.inf, np.inf)
    raise DataError(
        f"{source}: {name} is {dtype} of shape {list(shape)}; wanted [N, F] numbers, or images [N, H, W] or "
        "[N, H, W, C] as uint8 or float32"
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
    texts = {role: _texts(array) for role, array in columns.items() if role not in ("input", "label")}
    inputs = columns["input"].reshape(-1, *spec.shape)
    yield from in_blocks(
        spec,
        inputs,
        _texts(columns["label"]),
        "row {}".format,
        ids=texts.get("id"),
        groups=texts.get("group"),
        splits=texts.get("split"),
    )


def _count_npz_classes(file: StoredFile, label: str) -> int:
    with file.local() as path, np.load(path, allow_pickle=False) as arrays:
        return len(np.unique(arrays[label]))


def _texts(array: NDArray[Any]) -> list[Any]:
    """Values as text; None for NaN and for empty text. Whole floats lose their fraction, so that 3.0 is 3."""
    if array.dtype.kind == "f":
        return [None if math.isnan(one) else str(int(one)) if one.is_integer() else str(one) for one in array.tolist()]
    return [None if one == "" else str(one) for one in array.tolist()]


SOURCES: dict[str, Callable[[str, ReadOptions], Source]] = {
    "sklearn": _open_sklearn,
    "idx": open_idx,
    "images": open_image_folder,
    "npz": _open_npz,
    "parquet": open_parquet,
    "csv": open_csv,
}
