"""Random numbers that are a pure function of their name: (example key, view, seed, stream, position).

splitmix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", doi:10.1145/2660193.2660195)
used as a counter-based generator: unsigned 64-bit arithmetic on whole arrays, the same on every machine, whatever
else is in the batch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15


def mix(values: U64) -> U64:
    """splitmix64's output function, elementwise: a bijection of 64 bits that leaves no trace of its input's order."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def streams(keys: NDArray[np.uint8], view: NDArray[np.int64], seed: int) -> U64:
    """[B] states, one for each (example, view) under this seed. Keys are [B, 16], views [B] or [B, V] (then [B, V])."""
    words = np.ascontiguousarray(keys).view("<u8").astype(np.uint64)
    shape = (-1,) + (1,) * (view.ndim - 1)
    states = mix(
        words[:, 0].reshape(shape)
        + mix(words[:, 1].reshape(shape) + mix(_counter(np.array([seed % 2**64], np.uint64))))
    )
    return mix(states + _counter(view))


def substream(states: U64, index: int) -> U64:
    """[B] states independent of those of every other index: one for each transform."""
    return mix(states + _counter(np.array([index])))


def draw(states: U64, position: int) -> U64:
    """[B] uniform 64-bit numbers."""
    return mix(states + _counter(np.array([position])))


def draw_many(states: U64, count: int) -> U64:
    """[B, count] uniform 64-bit numbers; column p is `draw(states, p)`."""
    return mix(states[:, None] + _counter(np.arange(count)))


def integers(uniform: U64, low: int, high: int) -> NDArray[np.int64]:
    """Uniform 64-bit numbers as integers from low to high, both included (a span below 2**32)."""
    span = np.uint64(high - low + 1)
    return low + (((uniform >> np.uint64(32)) * span) >> np.uint64(32)).astype(np.int64)


def happens(uniform: U64, probability: float) -> NDArray[np.bool_]:
    """Uniform 64-bit numbers as true this often: never at 0, always at 1."""
    return integers(uniform, 0, 2**32 - 2) < int(probability * 2**32)


def multiples(uniform: U64, most: float) -> NDArray[np.float32]:
    """Uniform 64-bit numbers as multiples of most / 2**15 from -most to most."""
    return integers(uniform, -(2**15), 2**15).astype(np.float32) * np.float32(most / 2**15)


def bell(uniform: U64) -> NDArray[np.int16]:
    """Uniform 64-bit numbers as bell-shaped integers of mean 0 and standard deviation BELL_STD, from -1020 to 1020.

    The sum of a number's eight bytes: a discrete Irwin-Hall distribution, near enough to a Gaussian cut at 4.9 sigma.
    """
    lanes = (uniform & np.uint64(0x00FF00FF00FF00FF)) + ((uniform >> np.uint64(8)) & np.uint64(0x00FF00FF00FF00FF))
    total = (lanes * np.uint64(0x0001000100010001)) >> np.uint64(48)
    return total.astype(np.int16) - np.int16(1020)


BELL_STD = math.sqrt(8 * (256**2 - 1) / 12)
"""Of `bell`: eight times the variance of one byte, about 209."""


def _counter(values: NDArray[Any]) -> U64:
    """Counter values times an odd constant (the golden ratio's), modulo 2**64, so that neighbours start far apart."""
    return (values.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
