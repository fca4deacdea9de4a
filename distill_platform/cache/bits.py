"""Integers packed side by side, each in as many bits as the largest needs.

The integers of a unit make one little-endian number: each starts at the bit after the one before it, lowest bit first,
and the number is padded with zero bits to whole bytes. Where all have one width,
`int.from_bytes(cell, "little") >> k * width & (1 << width) - 1` is integer k in any language.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_WIDTH = 32
TRITS_IN_BYTE = 5
"""3^5 = 243."""

Widths = tuple[int, ...]
"""Bits of each of K integers, 1 to 32 each."""


def width_for(count: int) -> int:
    """Bits that hold every integer from 0 to `count - 1`; 1 at least."""
    return max(1, (count - 1).bit_length())


def packed_size_bytes(widths: Widths) -> int:
    """Bytes of integers of these widths."""
    return -(-sum(widths) // 8)


def pack(values: Tensor, widths: Widths) -> Tensor:
    """Integers `[…, K]`, each below 2^width -> uint8 `[…, packed_size_bytes(widths)]`."""
    first, shift, _, reach = _places(widths, values.device)
    shifted = values.long() << shift
    size = packed_size_bytes(widths)
    packed = torch.zeros((*values.shape[:-1], size + reach), dtype=torch.int64, device=values.device)
    for byte in range(reach):  # no two integers share a bit, so adding them is joining them
        packed.index_add_(-1, first + byte, (shifted >> 8 * byte) & 0xFF)
    return packed[..., :size].to(torch.uint8)


def unpack(packed: Tensor, widths: Widths) -> Tensor:
    """What `pack` was given: uint8 `[…, packed_size_bytes(widths)]` -> int64 `[…, K]`."""
    first, shift, mask, reach = _places(widths, packed.device)
    last = packed.shape[-1] - 1
    joined = packed.index_select(-1, first).long()
    for byte in range(1, reach):  # past the end there is nothing of an integer: what is read again is masked away
        joined |= packed.index_select(-1, (first + byte).clamp(max=last)).long() << 8 * byte
    return (joined >> shift) & mask


def pack_nibbles(values: Tensor) -> Tensor:
    """`pack` of integers of 4 bits each, in a fraction of its time where they are many."""
    even = F.pad(values.to(torch.uint8), (0, values.shape[-1] % 2))
    return even[..., 0::2] | even[..., 1::2] << 4


def unpack_nibbles(packed: Tensor, count: int) -> Tensor:
    """What `pack_nibbles` was given, uint8 `[…, count]`."""
    return torch.stack((packed & 0xF, packed >> 4), -1).flatten(-2)[..., :count]


def trits_size_bytes(count: int) -> int:
    """Bytes of so many integers from 0 to 2, five to a byte."""
    return -(-count // TRITS_IN_BYTE)


def pack_trits(values: Tensor) -> Tensor:
    """Integers `[…, K]` from 0 to 2 -> uint8 `[…, trits_size_bytes(K)]`: the first of five counts 1, the last 81."""
    digits = F.pad(values.to(torch.uint8), (0, -values.shape[-1] % TRITS_IN_BYTE))
    packed = digits[..., TRITS_IN_BYTE - 1 :: TRITS_IN_BYTE].clone()
    for place in reversed(range(TRITS_IN_BYTE - 1)):
        packed.mul_(3).add_(digits[..., place::TRITS_IN_BYTE])
    return packed


def unpack_trits(packed: Tensor, count: int) -> Tensor:
    """What `pack_trits` was given, int64 `[…, count]`."""
    return _trits(packed.device)[packed.long()].flatten(-2)[..., :count]


@lru_cache(maxsize=64)
def _trits(device: torch.device) -> Tensor:
    """The trits of every byte, `[256, TRITS_IN_BYTE]`."""
    return torch.arange(256, device=device)[:, None] // 3 ** torch.arange(TRITS_IN_BYTE, device=device) % 3


@lru_cache(maxsize=64)
def _places(widths: Widths, device: torch.device) -> tuple[Tensor, Tensor, Tensor, int]:
    """Of each integer its first byte, its shift within that, its mask, `[K]` each; the most bytes that one touches."""
    assert all(1 <= width <= MAX_WIDTH for width in widths), widths
    width = torch.tensor(widths)
    start = width.cumsum(0) - width
    shift = start % 8
    places = (start // 8, shift, (1 << width) - 1)
    return *(place.to(device) for place in places), -(-int((shift + width).max()) // 8)  # type: ignore[return-value]
