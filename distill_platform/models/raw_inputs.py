"""What a user of a saved model has, brought to the form that the data had: raw inputs as one tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill_platform.data.padding import Sequences
from distill_platform.data.schema import InputSpec
from distill_platform.data.sounds import sound_inputs
from distill_platform.data.texts import text_inputs
from distill_platform.errors import ModelError


def raw_inputs(inputs: Any, form: InputSpec, num_ids: int) -> Tensor:
    """Inputs -> raw inputs `[N, *shape]` of the form's type; see `Student` for what is taken.

    num_ids: of tokens, how many there are. Raises ModelError for another shape, type or range.
    """
    if form.kind in _SEQUENCES:
        whole = inputs.numpy() if isinstance(inputs, Tensor) else inputs
        return torch.from_numpy(_SEQUENCES[form.kind](whole, form, num_ids))
    values = np.asarray(inputs)
    shape = tuple(form.shape)
    if form.kind == "image" and shape[-1] == 1 and values.shape[1:] == shape[:-1]:
        values = values[..., None]
    if values.shape[1:] != shape:
        raise ModelError(f"inputs have shape {list(values.shape)}, wanted [N, {', '.join(map(str, shape))}]")
    if values.dtype.kind not in "buif":
        raise ModelError(f"inputs have type {values.dtype}, wanted numbers")
    if form.dtype == "uint8" and len(values):
        _check_pixels(values, form)
    if not np.isfinite(values).all():
        raise ModelError("inputs hold NaN or infinite values; wanted finite numbers")
    return torch.from_numpy(np.ascontiguousarray(values.astype(form.dtype)))


def _check_pixels(values: NDArray[Any], form: InputSpec) -> None:
    low, high = float(values.min()), float(values.max())
    if low < form.low or high > form.high or (values.dtype.kind == "f" and (values != np.round(values)).any()):
        raise ModelError(
            f"inputs hold {values.dtype} values in {low:g}..{high:g}, wanted whole numbers in {form.low:g}.."
            f"{form.high:g}: raw pixels, not scaled ones"
        )


def _texts(inputs: Any, form: InputSpec, num_ids: int) -> NDArray[Any]:
    if _is_raw(inputs, form):
        return _ending_in_padding(inputs, form)
    given = list(inputs)
    if isinstance(inputs, str) or not all(isinstance(text, str) for text in given):
        raise ModelError(
            f"inputs are {_described(inputs)}, wanted a list of strings, or bytes [N, {form.shape[0]}] uint8"
        )
    try:
        column = pa.array(given, pa.string())
    except UnicodeEncodeError as error:
        raise ModelError(f"inputs hold what is no text in Unicode: {error}") from error
    return _all_read(text_inputs(column, _numbers(given), form))


def _sounds(inputs: Any, form: InputSpec, num_ids: int) -> NDArray[Any]:
    if _is_raw(inputs, form):
        return _ending_in_padding(inputs, form)
    given = [np.asarray(sound) for sound in inputs]
    kinds = {sound.dtype.kind for sound in given}
    if any(sound.ndim != 1 for sound in given) or len(kinds) > 1 or not kinds <= {"i", "f"}:
        raise ModelError(
            f"inputs are {_described(inputs)}, wanted a list of sounds of one axis, all int16 or all real numbers from "
            f"-1 to 1, at {form.sample_rate} samples per second"
        )
    if kinds == {"i"} and any(len(sound) and (sound.min() < -(2**15) or sound.max() >= 2**15) for sound in given):
        raise ModelError("inputs hold whole numbers beyond 16 bits; wanted int16, or real numbers from -1 to 1")
    item = pa.float64() if kinds == {"f"} else pa.int16()
    column = pa.array([sound.astype(item.to_pandas_dtype()) for sound in given], pa.list_(item))
    return _all_read(sound_inputs(column, _numbers(given), form))


def _tokens(inputs: Any, form: InputSpec, num_ids: int) -> NDArray[Any]:
    width, padding = form.shape[0], form.padding
    given = [np.asarray(sequence) for sequence in inputs]
    if any(ids.ndim != 1 or (len(ids) and ids.dtype.kind not in "iu") for ids in given):
        raise ModelError(f"inputs are {_described(inputs)}, wanted ids [N, {width}], or a list of lists of ids")
    if longest := max((len(ids) for ids in given if len(ids) > width), default=0):
        raise ModelError(f"an input has {longest} tokens, the model takes up to {width}; give the last {width}")
    rows = np.full((len(given), width), padding, np.int32)
    for row, ids in zip(rows, given, strict=True):
        if len(ids) and (ids.min() < -1 or ids.max() >= num_ids):
            raise ModelError(
                f"inputs hold ids {ids.min()}..{ids.max()}, wanted 0..{num_ids - 1}, and {padding} behind the end"
            )
        row[: len(ids)] = ids
    return _ending_in_padding(rows, form)


_SEQUENCES: dict[str, Callable[[Any, InputSpec, int], NDArray[Any]]] = {
    "text": _texts,
    "audio": _sounds,
    "tokens": _tokens,
}


def _is_raw(inputs: Any, form: InputSpec) -> bool:
    return isinstance(inputs, np.ndarray) and inputs.dtype == form.dtype and inputs.shape[1:] == form.shape


def _ending_in_padding(rows: NDArray[Any], form: InputSpec) -> NDArray[Any]:
    counts = rows != form.padding
    if (counts[:, 1:] & ~counts[:, :-1]).any():
        raise ModelError(f"inputs hold {form.padding} before the end of a sequence, where it stands for padding alone")
    return np.ascontiguousarray(rows)


def _all_read(found: Sequences) -> NDArray[Any]:
    if found.faults:
        raise ModelError(
            "inputs cannot be used: " + "; ".join(f"{fault} ({where})" for fault, where in found.faults[:5])
        )
    return found.inputs


def _numbers(given: Sequence[Any]) -> list[str]:
    return [f"input {number}" for number in range(len(given))]


def _described(inputs: Any) -> str:
    if isinstance(inputs, np.ndarray):
        return f"an array {list(inputs.shape)} of {inputs.dtype}"
    return f"a {type(inputs).__name__}"
