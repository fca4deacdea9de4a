"""Where examples come from. A source is one line of text; its beginning or its ending says how it is read.

    sklearn:digits | sklearn:breast_cancer | sklearn:wine        scikit-learn's bundled sets
    idx:FOLDER_URI                                               the MNIST family, .gz or not, with its own test split
    images:FOLDER_URI, audio:FOLDER_URI                          one subfolder per class
    text:FILE or text:FOLDER of .txt or .txt.gz                  documents, packed into blocks of tokens
    FILE.npz                                                     arrays x, y, and perhaps id, group, split
    FILE or FOLDER of .parquet, .csv or .csv.gz                  tables

Folders and files are local or on S3. To add a source: a function that opens it, and a line in SOURCES.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from distill_platform.data.archives import open_npz
from distill_platform.data.blocks import Block, ReadOptions, Source, features, in_blocks
from distill_platform.data.delimited import open_csv
from distill_platform.data.documents import TEXT_SUFFIXES, open_documents
from distill_platform.data.files import digest_of, digest_of_arrays, find_files
from distill_platform.data.idx import open_idx
from distill_platform.data.images import IMAGE_SUFFIXES, open_image_folder
from distill_platform.data.parquet import open_parquet
from distill_platform.data.schema import InputSpec
from distill_platform.data.sounds import open_wav_folder
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
    suffixes = {
        "images": IMAGE_SUFFIXES,
        "audio": (".wav",),
        "text": TEXT_SUFFIXES,
        "csv": (".csv", ".csv.gz"),
        "idx": ("-ubyte", "-ubyte.gz"),
    }
    uri = source.removeprefix(f"{scheme}:")
    files = digest_of(find_files(uri, suffixes.get(scheme, (f".{scheme}",))))
    return digest_of_arrays([part.encode() for file in files for part in file])


def _scheme(source: str) -> str:
    prefix = source.partition(":")[0]
    if prefix in SOURCES and prefix not in _SUFFIXES.values():
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
        "audio:FOLDER, text:FILE_OR_FOLDER, or a file or folder of .npz, .parquet, .csv or .csv.gz"
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


SOURCES: dict[str, Callable[[str, ReadOptions], Source]] = {
    "sklearn": _open_sklearn,
    "idx": open_idx,
    "images": open_image_folder,
    "audio": open_wav_folder,
    "text": open_documents,
    "npz": open_npz,
    "parquet": open_parquet,
    "csv": open_csv,
}
