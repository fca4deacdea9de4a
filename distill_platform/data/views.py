"""Views: augmentation as a pure function of (example, view number, data seed).

A teacher's output for view v of an example is right for a student only if the student meets the very same pixels. So
a view depends on nothing else: not on the batch it is in, on threads, on the machine or on the trial. View 0 is the
example itself.

Moves (shift, flip, crop, rotation) of all transforms are composed, in the order given, and the pixels are sampled
once; then the others (colour, noise, typos …) change values, in the order given. What mixes two examples (mixup,
cutmix) comes last, on both as the rest made them: see mixing.py, which shows a view whole.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill_platform.data.draws import U64, streams, substream
from distill_platform.data.resample import Pose, sample
from distill_platform.data.schema import PADDING, InputSpec
from distill_platform.data.transforms import TRANSFORMS
from distill_platform.errors import DataError

VALUES_AT_ONCE = 1 << 15
"""A batch is worked on in parts whose arrays stay in a core's cache: three times faster than in one piece."""


@dataclass(frozen=True)
class Views:
    """`num` views per example, view 0 being the example itself. Made by `Views.of`."""

    num: int
    seed: int
    transforms: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()

    @classmethod
    def of(cls, num: int, seed: int, transforms: Sequence[Mapping[str, Any]]) -> Views:
        """Views by transforms such as `{"name": "shift", "pixels": 1}`.

        Raises DataError, naming every fault, for unknown names and arguments that are missing, unknown or out of range.
        """
        faults: list[str] = []
        if num < 1:
            faults.append(f"views.num is {num}; wanted 1 (the example itself) or more")
        if num > 1 and not transforms:
            faults.append(f"views.num is {num} without any transform: all views would be equal; give some, or num: 1")
        checked = tuple(_checked(number, given, faults) for number, given in enumerate(transforms))
        if faults:
            raise DataError("; ".join(faults))
        return cls(num, seed, checked)

    @property
    def mixes(self) -> bool:
        """Whether a view may hold a part of a second example."""
        return self.num > 1 and any(TRANSFORMS[name].mix is not None for name, _ in self.transforms)

    def check(self, spec: InputSpec) -> None:
        """Raises DataError if a transform makes no sense for this kind of input."""
        allowed = sorted(name for name, transform in TRANSFORMS.items() if spec.kind in transform.kinds)
        wrong = [name for name, _ in self.transforms if name not in allowed]
        if wrong:
            raise DataError(
                f"{', '.join(wrong)} cannot be applied to inputs of kind {spec.kind!r} and shape {list(spec.shape)}; "
                f"allowed there: {', '.join(allowed) or 'none'}"
            )


def augment(inputs: Tensor, keys: Tensor, view: Tensor, views: Views, spec: InputSpec) -> Tensor:
    """Each example as its view shows it before any mixing: same shape and dtype, bit-identical on every machine.

    inputs [B, *shape] of the dtype of their spec, keys [B, 16] uint8, view [B] int64; all on the CPU, none is changed.

    Raises DataError if the transforms do not fit the kind of input.
    """
    views.check(spec)
    augmented = inputs.clone()
    shown, changed = augmented.numpy(), view.numpy().nonzero()[0]
    if not len(changed):
        return augmented
    states = streams(keys.numpy()[changed], view.numpy()[changed], views.seed)
    size = max(1, VALUES_AT_ONCE // math.prod(spec.shape))
    for start in range(0, len(changed), size):
        rows = changed[start : start + size]
        shown[rows] = _transformed(shown[rows], states[start : start + size], views, spec)
    return augmented


def view_of_epoch(keys: Tensor, epoch: int, views: Views) -> Tensor:
    """[B] int64: which view each example (keys [B, 16] uint8) shows in an epoch.

    Entry (epoch mod V) of a permutation of the V views that depends on the key: within V epochs an example shows every
    view once, in an order of its own.
    """
    if views.num == 1:
        return torch.zeros(len(keys), dtype=torch.int64)
    every_view = np.arange(views.num, dtype=np.int64)[None, :]
    order = np.argsort(streams(keys.numpy(), every_view, views.seed), axis=1, kind="stable")
    return torch.from_numpy(np.ascontiguousarray(order[:, epoch % views.num]))


def _transformed(originals: NDArray[Any], states: U64, views: Views, spec: InputSpec) -> NDArray[Any]:
    steps = [
        (TRANSFORMS[name], substream(states, number), dict(arguments))
        for number, (name, arguments) in enumerate(views.transforms)
    ]
    moves = [step for step in steps if step[0].move is not None]
    values = originals
    if moves:
        pose = Pose.still(len(originals))
        for transform, stream, arguments in moves:
            assert transform.move is not None
            pose = transform.move(pose, stream, arguments)
        between = any(name == "rotation" for name, _ in views.transforms)
        mirror_edges = any(transform.mirrors_edges for transform, _, _ in moves)
        values = sample(originals, pose, between, mirror_edges, fill=spec.low)
    for transform, stream, arguments in steps:
        if transform.change is not None:
            given = values if spec.kind == "text" else values.astype(np.float32)
            values = _padded_as(originals, transform.change(given, stream, arguments, spec), spec)
    return _padded_as(originals, _as_stored(values, spec), spec)


def _padded_as(originals: NDArray[Any], values: NDArray[Any], spec: InputSpec) -> NDArray[Any]:
    """Sounds with their padding where it was; a text's moves when it gets shorter."""
    if spec.kind != "audio":
        return values
    return np.where(originals == spec.padding, values.dtype.type(PADDING["audio"]), values)


def _as_stored(values: NDArray[Any], spec: InputSpec) -> NDArray[Any]:
    """Rounded to the input's own type; images stay within what their format allows."""
    if values.dtype == spec.dtype:
        return np.clip(values, spec.low, spec.high) if spec.kind == "image" else values
    return np.clip(np.floor(values + np.float32(0.5)), spec.low, spec.high).astype(spec.dtype)


def _checked(number: int, given: Mapping[str, Any], faults: list[str]) -> tuple[str, tuple[tuple[str, float], ...]]:
    where = f"views.transforms[{number}]"
    name = str(given.get("name"))
    if name not in TRANSFORMS:
        faults.append(f"{where}.name is {given.get('name')!r}; {_suggestion(name, TRANSFORMS)}")
        return name, ()
    wanted = TRANSFORMS[name].arguments
    for extra in given.keys() - wanted.keys() - {"name"}:
        faults.append(f"{where}: {name} takes no {extra!r}; {_suggestion(extra, wanted)}")
    values: list[tuple[str, float]] = []
    for argument, limits in sorted(wanted.items()):
        value = given.get(argument, limits.default)
        if value is None:
            faults.append(f"{where}: {name} needs {argument!r}, from {limits.low:g} to {limits.high:g}")
        elif isinstance(value, bool) or not isinstance(value, int if limits.whole else int | float):
            faults.append(f"{where}.{argument} is {value!r}; wanted a {'whole ' if limits.whole else ''}number")
        elif not limits.low <= value <= limits.high:
            faults.append(f"{where}.{argument} is {value:g}; wanted from {limits.low:g} to {limits.high:g}")
        else:
            values.append((argument, float(value)))
    return name, tuple(values)


def _suggestion(got: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(got, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(known))}"
