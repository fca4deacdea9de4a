"""Changes of sequences that views are made of: of the bytes of a text, of the samples of a sound.

Each is a pure function of the values and an example's random stream, and bit-identical on every machine: no libm, no
sum whose order may differ. Padding is put back behind what they give. Axes: B examples, L bytes or samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill_platform.data.draws import U64, draw, draw_many, happens, integers, multiples, substream
from distill_platform.data.padding import lengths_of
from distill_platform.data.schema import PADDING, InputSpec

_DROP, _SWAP, _REPLACE = range(3)


def typos(values: NDArray[Any], stream: U64, arguments: Mapping[str, float], spec: InputSpec) -> NDArray[Any]:
    """Of texts `[B, L]`, each ASCII letter is with chance `rate` left out, swapped with the next, or another one.

    All other bytes stay, so that a text stays UTF-8, and none grows. A text that would lose all it has is left alone.
    """
    letters = _are_letters(values)
    width = values.shape[1]
    hit = letters & happens(draw_many(substream(stream, 0), width), arguments["rate"])
    kind = integers(draw_many(substream(stream, 1), width), _DROP, _REPLACE)
    other = integers(draw_many(substream(stream, 2), width), ord("A"), ord("Z")).astype(np.uint8)
    replaced = np.where(hit & (kind == _REPLACE), other | (values & 0x20), values)
    swapped = _swapped(replaced, hit & (kind == _SWAP), letters & ~hit)
    kept = (values != PADDING["text"]) & ~(hit & (kind == _DROP))
    order = np.argsort(~kept, axis=1, kind="stable")
    left = np.arange(width) < kept.sum(axis=1)[:, None]
    shortened = np.where(left, np.take_along_axis(swapped, order, axis=1), np.uint8(PADDING["text"]))
    return np.where(kept.any(axis=1)[:, None], shortened, values)


def gain(values: NDArray[Any], stream: U64, arguments: Mapping[str, float], spec: InputSpec) -> NDArray[Any]:
    """Sounds `[B, L]` times 1 ± up to `fraction`; what gets too loud is clipped."""
    factor = np.float32(1) + multiples(draw(stream, 0), arguments["fraction"])
    changed: NDArray[np.float32] = values * factor[:, None]
    return changed


def time_shift(values: NDArray[Any], stream: U64, arguments: Mapping[str, float], spec: InputSpec) -> NDArray[Any]:
    """Sounds `[B, L]` begin up to `seconds` earlier or later; their lengths stay, silence moves in."""
    most = int(arguments["seconds"] * spec.sample_rate)
    shift = integers(draw(stream, 0), -most, most)[:, None]
    source = np.arange(values.shape[1]) - shift
    inside = (source >= 0) & (source < lengths_of(values, PADDING["audio"])[:, None])
    return np.where(inside, np.take_along_axis(values, np.where(inside, source, 0), axis=1), np.float32(0))


def _are_letters(values: NDArray[Any]) -> NDArray[np.bool_]:
    return (values | 0x20) - np.uint8(ord("a")) < 26  # unsigned: what lies before wraps around


def _swapped(values: NDArray[Any], first: NDArray[np.bool_], free: NDArray[np.bool_]) -> NDArray[Any]:
    """Values at `first` change places with those behind them, where those are free."""
    both = first[:, :-1] & free[:, 1:]
    changed = values.copy()
    changed[:, :-1] = np.where(both, values[:, 1:], changed[:, :-1])
    changed[:, 1:] = np.where(both, values[:, :-1], changed[:, 1:])
    return changed
