"""Packed integers: what comes back is what went in, in no more bytes than the bits need, readable in any language."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill_platform.cache.bits import (
    Widths,
    pack,
    pack_nibbles,
    pack_trits,
    packed_size_bytes,
    trits_size_bytes,
    unpack,
    unpack_nibbles,
    unpack_trits,
    width_for,
)


@st.composite
def packable(draw: st.DrawFn) -> tuple[list[list[int]], Widths]:
    """Rows of integers and their widths, 1 to 32 bits each."""
    widths = tuple(draw(st.lists(st.integers(1, 32), min_size=1, max_size=20)))
    row = st.tuples(*(st.integers(0, 2**width - 1) for width in widths)).map(list)
    return draw(st.lists(row, min_size=0, max_size=4)), widths


@given(packable())
def test_unpack_gives_what_was_packed(case: tuple[list[list[int]], Widths]) -> None:
    rows, widths = case
    values = torch.tensor(rows, dtype=torch.int64).reshape(len(rows), len(widths))
    packed = pack(values, widths)
    assert packed.shape == (len(rows), packed_size_bytes(widths)) == (len(rows), -(-sum(widths) // 8))
    assert packed.dtype == torch.uint8
    assert torch.equal(unpack(packed, widths), values)


@given(packable())
def test_packed_integers_are_one_little_endian_number(case: tuple[list[list[int]], Widths]) -> None:
    rows, widths = case
    for row in rows:
        number, start = int.from_bytes(bytes(pack(torch.tensor(row), widths).tolist()), "little"), 0
        for value, width in zip(row, widths, strict=True):
            assert number >> start & (1 << width) - 1 == value
            start += width
        assert number >> start == 0


@given(st.lists(st.integers(0, 15), max_size=33))
def test_nibbles_are_integers_of_four_bits(codes: list[int]) -> None:
    values = torch.tensor([codes, codes[::-1]], dtype=torch.int64).reshape(2, len(codes))
    packed = pack_nibbles(values)
    assert torch.equal(unpack_nibbles(packed, len(codes)).long(), values)
    if codes:
        assert torch.equal(packed, pack(values, (4,) * len(codes)))


@given(st.lists(st.integers(0, 2), max_size=33))
def test_trits_are_digits_of_base_three_five_to_a_byte(trits: list[int]) -> None:
    values = torch.tensor([trits, trits[::-1]], dtype=torch.int64).reshape(2, len(trits))
    packed = pack_trits(values)
    assert packed.dtype == torch.uint8
    assert packed.shape == (2, trits_size_bytes(len(trits))) == (2, -(-len(trits) // 5))
    assert torch.equal(unpack_trits(packed, len(trits)), values)
    for byte, first in zip(packed[0].tolist(), range(0, len(trits), 5), strict=True):
        assert byte == sum(trit * 3**place for place, trit in enumerate(trits[first : first + 5]))


def test_leading_axes_stay() -> None:
    values = torch.arange(2 * 3 * 5).reshape(2, 3, 5)
    packed = pack(values, (17,) * 5)
    assert packed.shape == (2, 3, 11)
    assert torch.equal(unpack(packed, (17,) * 5), values)
    assert torch.equal(unpack_trits(pack_trits(values % 3), 5), values % 3)


@pytest.mark.parametrize(
    ("count", "width"),
    [(1, 1), (2, 1), (3, 2), (100, 7), (128, 7), (129, 8), (32_768, 15), (32_769, 16), (131_072, 17)],
)
def test_ids_take_the_bits_that_the_vocabulary_needs(count: int, width: int) -> None:
    assert width_for(count) == width
    assert unpack(pack(torch.tensor([count - 1]), (width,)), (width,)).item() == count - 1
