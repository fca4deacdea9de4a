"""Encoded images, decoded with Pillow and brought to one form; folders of them with a subfolder per class."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from distill_platform.data.blocks import Block, ReadOptions, Source, rows_per_block
from distill_platform.data.files import StoredFile, find_files
from distill_platform.data.schema import InputSpec
from distill_platform.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
FILES_PER_PIECE = 256
_MODES = {1: "L", 3: "RGB"}


def open_image_folder(source: str, options: ReadOptions) -> Source:
    """`images:FOLDER_URI`: an image's class is the name of the folder directly below FOLDER_URI that holds it."""
    options.refuse_all_but(source, "image_size", "channels")
    files = find_files(source.removeprefix("images:"), IMAGE_SUFFIXES)
    if options.labelled and (stray := [file.name for file in files if "/" not in file.name]):
        raise DataError(
            f"{source}: images in no class folder ({len(stray)}), such as {stray[0]}; "
            "wanted FOLDER/<class name>/<image>"
        )
    spec = image_spec(source, options, lambda: files[0].read(), files[0].name)
    pieces = tuple(tuple(files[start : start + FILES_PER_PIECE]) for start in range(0, len(files), FILES_PER_PIECE))
    read = partial(_read_files, spec, options.image_size is not None)
    num_classes = len({file.name.split("/")[0] for file in files})
    return Source(source, spec, pieces, read, len(files), count_classes=lambda: num_classes)


def image_spec(source: str, options: ReadOptions, first: Callable[[], bytes], where: str) -> InputSpec:
    """The form that images are brought to: what the options say, else what the first image has."""
    if options.channels is not None and options.channels not in _MODES:
        raise DataError(f"data.channels is {options.channels}; wanted 1 (grey) or 3 (red, green, blue)")
    size, channels = options.image_size, options.channels
    if size is None or channels is None:
        try:
            with _opened(first()) as image:
                size = size or (image.height, image.width)
                channels = channels or (1 if image.mode in ("1", "L", "I", "I;16", "F") else 3)
        except _UNREADABLE as error:
            raise DataError(
                f"{source}: the first image, {where}, cannot be read ({_why(error)}); "
                "remove it, or set data.image_size and data.channels to see all faulty images"
            ) from error
    return InputSpec("image", (*size, channels), "uint8", 0.0, 255.0)


def decode_images(
    encoded: Sequence[bytes], where: Sequence[str], spec: InputSpec, resize: bool
) -> tuple[NDArray[np.uint8], list[int], list[tuple[str, str]]]:
    """Images [n, H, W, C], which of the given they are, and the faults of the others."""
    images: list[NDArray[np.uint8]] = []
    kept: list[int] = []
    faults: list[tuple[str, str]] = []
    for number, data in enumerate(encoded):
        try:
            image = _decode(data, spec, resize)
        except _UNREADABLE as error:
            faults.append(("unreadable image", f"{where[number]} ({_why(error)})"))
            continue
        if image.shape == spec.shape:
            images.append(image)
            kept.append(number)
        else:
            faults.append(("image of another size", f"{where[number]} ({image.shape[0]} x {image.shape[1]})"))
    return np.stack(images) if images else np.empty((0, *spec.shape), np.uint8), kept, faults


# What Pillow raises for bytes that are no image, are cut off, or are absurdly large.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def _opened(data: bytes) -> Image.Image:
    """The image as its camera held it (phones store a rotation beside the pixels)."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data)))


def _decode(data: bytes, spec: InputSpec, resize: bool) -> NDArray[np.uint8]:
    height, width, channels = spec.shape
    with _opened(data) as opened:
        image = opened.convert(_MODES[channels])
        if resize and image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, np.uint8)
    return pixels.reshape(*pixels.shape[:2], channels)


def _read_files(spec: InputSpec, resize: bool, piece: tuple[StoredFile, ...]) -> Iterator[Block]:
    step = rows_per_block(spec)
    for start in range(0, len(piece), step):
        files = piece[start : start + step]
        names = [file.name for file in files]
        images, kept, faults = decode_images([file.read() for file in files], names, spec, resize)
        labels = [names[number].split("/")[0] for number in kept]
        yield Block(images, labels, [names[number] for number in kept], faults=faults)


def _why(error: Exception) -> str:
    """What Pillow has against a file, in words: its own message names an object in memory."""
    return "no image in a format that Pillow knows" if isinstance(error, UnidentifiedImageError) else str(error)
