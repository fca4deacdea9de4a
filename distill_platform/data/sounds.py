"""Sounds as inputs: samples of one channel in 16 bits; columns of lists, and folders of WAV files."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from distill_platform.data.blocks import Block, ReadOptions, Source, rows_per_block
from distill_platform.data.files import StoredFile, find_files, total_bytes
from distill_platform.data.padding import Sequences, padded, rows_at, sorted_out
from distill_platform.data.schema import PADDING, InputSpec
from distill_platform.errors import DataError

FILES_PER_PIECE = 256
LARGEST = 2**15 - 1
"""Samples are -LARGEST to LARGEST: what lies below is padding."""

_UNREADABLE = (wave.Error, EOFError, ValueError)
"""What the wave module raises for bytes that are no WAV, or are cut off; and we for what it cannot hold."""


def sound_spec(source: str, length: int, sample_rate: int) -> InputSpec:
    """The form of sounds of up to `length` samples."""
    if length < 1:
        raise DataError(f"{source} holds no sound of one sample or more")
    return InputSpec("audio", (length,), "int16", -float(LARGEST), float(LARGEST), sample_rate=sample_rate)


def longest_list(column: pa.Array | pa.ChunkedArray) -> int:
    """Values of the longest list; 0 if there is none."""
    return pc.max(pc.list_value_length(column)).as_py() or 0


def sound_inputs(column: pa.Array, where: Sequence[str], spec: InputSpec) -> Sequences:
    """Lists of a column without nulls as samples `[n, L]`; int16, or real numbers from -1 to 1.

    Raises DataError for whole numbers that are missing inside a list.
    """
    values, lengths = _flat(column)
    found = [("empty sound", np.flatnonzero(lengths == 0))]
    if values.dtype.kind == "f":
        found += [
            ("not finite", rows_at(lengths, np.flatnonzero(~np.isfinite(values)))),
            ("sample beyond 1", rows_at(lengths, np.flatnonzero(np.abs(values) > 1))),
        ]
    kept, faults = sorted_out(found, len(column), where)
    if faults:
        values, lengths = _flat(column.take(pa.array(kept, pa.int64())))
    samples = _sixteen_bits(values)
    (width,) = spec.shape
    ends = np.minimum(lengths, width)
    return Sequences(padded(samples, lengths, ends, width, PADDING["audio"]), kept, lengths > width, faults)


def open_wav_folder(source: str, options: ReadOptions) -> Source:
    """`audio:FOLDER_URI` of WAV files: a sound's class is the name of the folder directly below that holds it."""
    options.refuse_all_but(source, "length")
    files = find_files(source.removeprefix("audio:"), (".wav",))
    if options.labelled and (stray := [file.name for file in files if "/" not in file.name]):
        raise DataError(
            f"{source}: sounds in no class folder ({len(stray)}), such as {stray[0]}; "
            "wanted FOLDER/<class name>/<sound>"
        )
    rates = {file.name: found for file in files[: 1 if options.length else None] if (found := _header(file))}
    if not rates:
        raise DataError(f"{source}: {files[0].name} cannot be read as WAV; wanted PCM of 8 or 16 bits")
    first, (_, rate) = next(iter(rates.items()))
    if other := next((name for name, (_, one) in rates.items() if one != rate), None):
        raise DataError(
            f"{source}: {other} has {rates[other][1]} samples per second, {first} has {rate}; bring all to one rate"
        )
    spec = sound_spec(source, options.length or max(length for length, _ in rates.values()), rate)
    pieces = tuple(tuple(files[start : start + FILES_PER_PIECE]) for start in range(0, len(files), FILES_PER_PIECE))
    num_classes = len({file.name.split("/")[0] for file in files})
    read = partial(_read_files, spec)
    return Source(source, spec, pieces, read, len(files), total_bytes(files), count_classes=lambda: num_classes)


def _read_files(spec: InputSpec, piece: tuple[StoredFile, ...]) -> Iterator[Block]:
    step = rows_per_block(spec)
    for start in range(0, len(piece), step):
        sounds: list[NDArray[np.int16]] = []
        names: list[str] = []
        faults: list[tuple[str, str]] = []
        for file in piece[start : start + step]:
            try:
                samples, rate = decode_wav(file.read())
            except _UNREADABLE as error:
                faults.append(("unreadable sound", f"{file.name} ({error or 'it is cut off'})"))
                continue
            if rate != spec.sample_rate:
                faults.append(("sound of another rate", f"{file.name} ({rate})"))
            else:
                sounds.append(samples)
                names.append(file.name)
        read = sound_inputs(pa.array(sounds, pa.list_(pa.int16())), names, spec)
        kept = [names[number] for number in read.kept]
        labels = [name.split("/")[0] for name in kept]
        yield Block(read.inputs, labels, kept, cut=read.cut, faults=[*faults, *read.faults])


def decode_wav(encoded: bytes) -> tuple[NDArray[np.int16], int]:
    """Samples of one channel, the mean of those there are, and how many there are per second.

    Raises ValueError for samples of other than 8 or 16 bits, wave.Error or EOFError for what is no WAV of PCM.
    """
    with wave.open(io.BytesIO(encoded)) as file:
        num_channels, width, rate, num_frames, *_ = file.getparams()
        if width not in (1, 2):
            raise ValueError(f"samples of {8 * width} bits; wanted 8 or 16")
        raw = file.readframes(num_frames)
    if len(raw) != num_frames * num_channels * width:
        raise ValueError(f"{len(raw)} bytes of samples, {num_frames * num_channels * width} are announced")
    samples = np.frombuffer(raw, "<i2") if width == 2 else (np.frombuffer(raw, np.uint8).astype(np.int16) - 128) * 256
    channels = samples.reshape(-1, num_channels)
    return channels[:, 0] if num_channels == 1 else np.rint(channels.mean(axis=1)).astype(np.int16), rate


def _header(file: StoredFile) -> tuple[int, int] | None:
    """Samples and samples per second; None for a file that cannot be read, which reading reports."""
    with file.local() as path:
        try:
            with wave.open(str(path)) as opened:
                return opened.getnframes(), opened.getframerate()
        except _UNREADABLE:
            return None


def _flat(column: pa.Array) -> tuple[NDArray[np.float64] | NDArray[np.int16], NDArray[np.int64]]:
    """All values one after the other, and how many each list has."""
    flat = pc.list_flatten(column)
    if pa.types.is_floating(flat.type):
        values = flat.cast(pa.float64()).to_numpy(zero_copy_only=False)  # missing ones are NaN
    elif flat.null_count:
        raise DataError(f"{flat.null_count} values are missing inside the lists of the input column")
    else:
        values = flat.to_numpy(zero_copy_only=False)
    return values, pc.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)


def _sixteen_bits(values: NDArray[np.float64] | NDArray[np.int16]) -> NDArray[np.int16]:
    if values.dtype.kind == "f":
        return np.rint(values * LARGEST).astype(np.int16)
    return np.maximum(values, -LARGEST).astype(np.int16)
