"""The augmentations there are, by name: how each moves pixels, changes values, or mixes an example with another.

Changes are given float32 values, those of texts bytes; of sequences they need not mind the padding.

To add a transform: a function below and a line in TRANSFORMS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill_platform.data.alterations import gain, time_shift, typos
from distill_platform.data.blending import Patches, cutmix, mixup
from distill_platform.data.draws import BELL_STD, U64, bell, draw, draw_many, happens, integers, multiples
from distill_platform.data.resample import STEPS_PER_DEGREE, Pose
from distill_platform.data.schema import InputSpec

Arguments = Mapping[str, float]
Values = NDArray[np.float32]


@dataclass(frozen=True)
class Argument:
    """A number that a transform takes."""

    low: float
    high: float
    whole: bool = False
    default: float | None = None


@dataclass(frozen=True)
class Transform:
    """A move of pixels, a change of values, or a mix of two examples; `kinds` of input it makes sense for."""

    arguments: Mapping[str, Argument]
    kinds: tuple[str, ...] = ("image",)
    move: Callable[[Pose, U64, Arguments], Pose] | None = None
    change: Callable[[NDArray[Any], U64, Arguments, InputSpec], NDArray[Any]] | None = None
    mix: Callable[[U64, Arguments, InputSpec], Patches] | None = None
    mirrors_edges: bool = False


def _shift(pose: Pose, stream: U64, arguments: Arguments) -> Pose:
    pixels = int(arguments["pixels"])
    return pose.shifted(integers(draw(stream, 0), -pixels, pixels), integers(draw(stream, 1), -pixels, pixels))


def _flip(pose: Pose, stream: U64, arguments: Arguments) -> Pose:
    return pose.mirrored(happens(draw(stream, 0), arguments["probability"]))


def _rotate(pose: Pose, stream: U64, arguments: Arguments) -> Pose:
    most = int(arguments["degrees"] * STEPS_PER_DEGREE)
    return pose.rotated(integers(draw(stream, 0), -most, most))


def _colour(values: Values, stream: U64, arguments: Arguments, spec: InputSpec) -> Values:
    """Contrast about the middle of the value range, then brightness: x -> middle + (x - middle) * gain + lift."""
    gain = np.float32(1) + multiples(draw(stream, 0), arguments["contrast"])
    lift = multiples(draw(stream, 1), arguments["brightness"]) * np.float32(spec.high - spec.low)
    middle = np.float32((spec.low + spec.high) / 2)
    per_image = (-1,) + (1,) * (values.ndim - 1)
    changed: Values = (values - middle) * gain.reshape(per_image) + (middle + lift).reshape(per_image)
    return changed


def _noise(values: Values, stream: U64, arguments: Arguments, spec: InputSpec) -> Values:
    """Bell-shaped noise with `std` as a fraction of the value range: of the image's, or of each feature's own."""
    ranges = spec.feature_ranges or (spec.high - spec.low,)
    scale = np.array([arguments["std"] * one / BELL_STD for one in ranges]).astype(np.float32)
    noise = bell(draw_many(stream, math.prod(values.shape[1:]))).reshape(values.shape)
    return values + noise.astype(np.float32) * scale


_MIX = {"alpha": Argument(0.01, 100), "probability": Argument(0, 1, default=1)}

TRANSFORMS: dict[str, Transform] = {
    # up to `pixels` along each axis, background (spec.low) moving in
    "shift": Transform({"pixels": Argument(1, 1024, whole=True)}, move=_shift),
    # left to right
    "flip": Transform({"probability": Argument(0, 1, default=0.5)}, move=_flip),
    # pad by `pixels` on every side with the mirrored image, cut the original size out at random
    "crop": Transform({"pixels": Argument(1, 1024, whole=True)}, move=_shift, mirrors_edges=True),
    # up to `degrees` either way about the centre, in steps of 1/16 degree
    "rotation": Transform({"degrees": Argument(1 / STEPS_PER_DEGREE, 180)}, move=_rotate),
    # fractions: gain in 1 ± contrast, lift of ± brightness of the value range
    "colour": Transform(
        {"brightness": Argument(0, 1, default=0), "contrast": Argument(0, 1, default=0)}, change=_colour
    ),
    "noise": Transform({"std": Argument(0, 1)}, kinds=("image", "features", "audio"), change=_noise),
    # sounds: louder or softer by 1 ± fraction, and up to so many seconds earlier or later
    "gain": Transform({"fraction": Argument(0, 1)}, kinds=("audio",), change=gain),
    "time_shift": Transform({"seconds": Argument(0, 60)}, kinds=("audio",), change=time_shift),
    # texts: letters left out, swapped or replaced, each with chance `rate`
    "typos": Transform({"rate": Argument(0, 1)}, kinds=("text",), change=typos),
    # with one other example of the split, as often as `probability`; shares from Beta(alpha, alpha)
    "mixup": Transform(_MIX, kinds=("image", "features"), mix=mixup),
    "cutmix": Transform(_MIX, mix=cutmix),
}
