"""IDX, the format of the MNIST family: a folder of four files, .gz or not, with an official test split.

http://yann.lecun.com/exdb/mnist describes it: two zero bytes, a type code (8: unsigned byte), the number of axes, their
sizes as big-endian 32-bit integers, then the values.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from distill_platform.data.blocks import Block, ReadOptions, Source, in_blocks
from distill_platform.data.files import StoredFile, find_files
from distill_platform.data.schema import InputSpec
from distill_platform.errors import DataError

_PARTS = {"train": "train", "test": "t10k"}


def open_idx(source: str, options: ReadOptions) -> Source:
    """`idx:FOLDER_URI`: train-images-idx3-ubyte, train-labels-idx1-ubyte and the same two of t10k."""
    options.refuse_all_but(source)
    files = {name: _idx_files(source, prefix) for name, prefix in _PARTS.items()}
    shape = _idx_header(*files["train"][:1])
    if len(shape) not in (3, 4):
        raise DataError(f"{source}: {files['train'][0].name} has shape {list(shape)}; wanted images [N, H, W]")
    num = sum(_idx_header(images)[0] for images, _ in files.values())
    spec = InputSpec("image", (*shape[1:], 1)[:3], "uint8", 0.0, 255.0)
    pieces = tuple((part, *pair) for part, pair in files.items())
    return Source(
        source,
        spec,
        pieces,
        partial(_read_idx, spec),
        num,
        has_test_split=True,
        count_classes=partial(_count_classes, files),
    )


def _count_classes(files: dict[str, tuple[StoredFile, StoredFile]]) -> int:
    return len(np.unique(np.concatenate([_idx_array(labels) for _, labels in files.values()])))


def _idx_files(source: str, prefix: str) -> tuple[StoredFile, StoredFile]:
    found = find_files(source.removeprefix("idx:"), ("-ubyte", "-ubyte.gz"))
    pair = []
    for kind in ("images-idx3", "labels-idx1"):
        matching = [file for file in found if file.name.removesuffix(".gz") == f"{prefix}-{kind}-ubyte"]
        if not matching:
            raise DataError(
                f"{source}: {prefix}-{kind}-ubyte (or .gz) is missing; found {', '.join(file.name for file in found)}"
            )
        pair.append(matching[0])
    return pair[0], pair[1]


def _read_idx(spec: InputSpec, piece: tuple[str, StoredFile, StoredFile]) -> Iterator[Block]:
    part, images_file, labels_file = piece
    images, labels = _idx_array(images_file), _idx_array(labels_file)
    if len(images) != len(labels):
        raise DataError(f"{images_file.name} holds {len(images)} images, {labels_file.name} {len(labels)} labels")
    return in_blocks(
        spec,
        images.reshape(-1, *spec.shape),
        [str(label) for label in labels],
        f"{images_file.name} image {{}}".format,
        splits=[part] * len(labels),
    )


def _idx_array(file: StoredFile) -> NDArray[np.uint8]:
    shape = _idx_header(file)
    data = _idx_bytes(file, None)[4 + 4 * len(shape) :]
    if len(data) != math.prod(shape):
        raise DataError(f"{file.name} is cut off: it announces {math.prod(shape)} values and holds {len(data)}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _idx_header(file: StoredFile) -> tuple[int, ...]:
    """The shape that a file announces."""
    head = _idx_bytes(file, 20)
    if len(head) < 4 or head[:3] != b"\0\0\x08" or len(head) < 4 + 4 * head[3]:
        raise DataError(f"{file.name} is no IDX file of bytes: it begins with {head[:4].hex(' ')}, wanted 00 00 08")
    return tuple(int(size) for size in np.frombuffer(head, ">u4", count=head[3], offset=4))


def _idx_bytes(file: StoredFile, count: int | None) -> bytes:
    with file.local() as path:
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
                return stream.read(count) if count is not None else stream.read()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{file.name} cannot be unpacked ({error}); fetch it again") from error
