"""Orders: every example once an epoch, the same from anywhere, and mixed as far as a window goes."""

from __future__ import annotations

import tracemalloc
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_platform.data.order import (
    BLOCK_EXAMPLES,
    GlobalOrder,
    Order,
    WindowedOrder,
    in_batches,
    make_order,
    step_seed,
)


def epoch_of(order: Order, num_examples: int, epoch: int = 0, seed: int = 0) -> torch.Tensor:
    return torch.cat([window.rows for window in order.windows(num_examples, seed, epoch)])


def test_the_global_order_is_one_permutation_by_seed_and_epoch() -> None:
    generator = torch.Generator().manual_seed(step_seed(7, "order", 3))
    assert torch.equal(epoch_of(GlobalOrder(), 1000, epoch=3, seed=7), torch.randperm(1000, generator=generator))


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 6), st.integers(1, 20), st.integers(0, 3), st.integers(0, 2**63))
def test_a_windowed_epoch_shows_every_example_once(
    num_examples: int, window_blocks: int, block_examples: int, epoch: int, seed: int
) -> None:
    order = WindowedOrder(window_blocks, block_examples)
    assert epoch_of(order, num_examples, epoch, seed).sort().values.tolist() == list(range(num_examples))


@settings(deadline=None)
@given(st.integers(2, 300), st.integers(1, 5), st.integers(1, 20), st.integers(1, 40), st.data())
def test_any_batch_can_be_returned_to(
    num_examples: int, window_blocks: int, block_examples: int, batch_size: int, data: st.DataObject
) -> None:
    order = WindowedOrder(window_blocks, block_examples)
    whole = epoch_of(order, num_examples).split(batch_size)
    start = data.draw(st.integers(0, len(whole) - 1))
    found = list(in_batches(order.windows(num_examples, 0, 0, start * batch_size), batch_size, start))
    assert [rows.tolist() for _, rows in found] == [rows.tolist() for rows in whole[start:]]
    for window, rows in found:
        assert rows[0] in window.rows


@pytest.mark.parametrize("order", [GlobalOrder(), WindowedOrder(3, 8)])
def test_seeds_and_epochs_differ(order: Order) -> None:
    epochs = [epoch_of(order, 500, epoch, seed).tolist() for epoch in range(3) for seed in range(3)]
    assert len({tuple(rows) for rows in epochs}) == 9


def test_a_window_is_read_from_its_blocks_and_says_which_ones_come_next() -> None:
    order = WindowedOrder(window_blocks=3, block_examples=8)
    windows = list(order.windows(100, 0, 0))
    next_epoch = next(order.windows(100, 0, 1))
    for window, following in zip(windows, [*windows[1:], next_epoch], strict=True):
        own, after = window.reads
        assert set((window.rows // 8).tolist()) == set(own.numbers)
        assert after == following.reads[0]
    assert [window.reads[1].epoch for window in windows] == [0, 0, 0, 0, 1]


def test_examples_mix_evenly_within_a_window() -> None:
    """Chi-square of (block of an example) x (quarter of the window it lands in), over many epochs: independent."""
    order, counts = WindowedOrder(window_blocks=4, block_examples=32), torch.zeros(4, 4)
    for epoch in range(200):
        window = next(order.windows(1024, 0, epoch))
        place_of = {block: place for place, block in enumerate(window.reads[0].numbers)}
        for quarter, rows in enumerate(window.rows.chunk(4)):
            for row in rows.tolist():
                counts[place_of[row // 32], quarter] += 1
    expected = 200 * 128 / 16
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 27.9  # the 99.9th percentile of 9 degrees of freedom


def test_blocks_meet_others_from_epoch_to_epoch() -> None:
    order = WindowedOrder(window_blocks=2, block_examples=4)
    met = set()
    for epoch in range(60):
        for window in order.windows(40, 0, epoch):
            first, second = window.reads[0].numbers
            met |= {(first, second), (second, first)}
    assert len(met) == 10 * 9


def test_an_order_of_a_billion_examples_is_not_held() -> None:
    order = make_order("windowed", 1 << 16)
    tracemalloc.start()
    window = next(order.windows(10**9, 0, 0, start=3 * 10**8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(window.rows) == 1 << 16
    assert window.first <= 3 * 10**8 < window.first + len(window.rows)
    assert peak < 60e6


def test_a_window_has_at_least_one_block() -> None:
    assert make_order("windowed", 1) == WindowedOrder(1)
    assert make_order("windowed", 5 * BLOCK_EXAMPLES) == WindowedOrder(5)
    assert make_order("global", 1) == GlobalOrder()


def test_batches_larger_than_a_window_are_whole() -> None:
    order = WindowedOrder(1, 4)
    batches = [rows for _, rows in islice(in_batches(order.windows(40, 0, 0), 10, 0), 4)]
    assert [len(rows) for rows in batches] == [10] * 4
