"""In which order a split's examples are met: a pure function of (seed, epoch, position).

    GlobalOrder    one permutation of all examples
    WindowedOrder  blocks of consecutive examples in a shuffled order; examples permuted within windows of some blocks

A windowed order is for data that does not fit in memory: within a window only its blocks are needed, each read once and
whole, where a global order would read every example by itself from all over the disk. `prepare` lays examples down in
the order of their keys' hashes, so a block is a random sample of its split already, whatever the order of the source;
windows mix blocks that change from epoch to epoch. Nothing depends on workers, machine or memory, and any position can
be returned to: the permutation of a window is made when the window is reached.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

BLOCK_EXAMPLES = 4096
"""So many rows of any width are whole disk pages, and reads of hundreds of kilobytes even at a few bytes a row."""


@dataclass(frozen=True)
class Blocks:
    """Blocks of an epoch by number, in the order in which they are read: block n holds examples
    `[n * BLOCK_EXAMPLES, (n + 1) * BLOCK_EXAMPLES)`."""

    epoch: int
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """Consecutive positions of an epoch. `rows` `[R]` int64: the examples at positions `first` to `first + R`.

    reads: the blocks that hold them, and then those of the window that comes next; empty if they come from all over.
    """

    first: int
    rows: Tensor
    reads: tuple[Blocks, ...] = ()


class Reader(Protocol):
    """What reads rows by an order, and is faster when told ahead."""

    def prefetch(self, reads: Sequence[Blocks]) -> None:
        """The blocks that will be read from now on, the soonest first, and no others; empty if that is not known."""


class Order(Protocol):
    """A permutation of `num_examples` for each epoch, given window by window."""

    def windows(self, num_examples: int, seed: int, epoch: int, start: int = 0) -> Iterator[Window]:
        """The windows of an epoch, from the one that holds position `start` on."""


@dataclass(frozen=True)
class GlobalOrder:
    """One permutation of all examples: takes 8 bytes an example, and memory that holds what is read by it."""

    def windows(self, num_examples: int, seed: int, epoch: int, start: int = 0) -> Iterator[Window]:
        """One window."""
        yield Window(0, torch.randperm(num_examples, generator=_generator(seed, "order", epoch)))


@dataclass(frozen=True)
class WindowedOrder:
    """Shuffled blocks of `block_examples` consecutive examples; examples permuted within `window_blocks` blocks.

    Tried on paper and left: a buffer through which blocks pass and from which examples are drawn. It mixes alike, but
    has a state, which a run that continues within an epoch would have to replay.
    """

    window_blocks: int
    block_examples: int = BLOCK_EXAMPLES

    def windows(self, num_examples: int, seed: int, epoch: int, start: int = 0) -> Iterator[Window]:
        """Windows of `window_blocks` blocks; the last one of an epoch may be smaller."""
        plan = self._plan(num_examples, seed, epoch)
        first = 0
        for number, blocks in enumerate(plan):
            size = sum(self._size(block, num_examples) for block in blocks.numbers)
            if first + size > start:
                following = plan[number + 1] if number + 1 < len(plan) else self._plan(num_examples, seed, epoch + 1)[0]
                mixed = torch.randperm(size, generator=_generator(seed, "window", epoch, number))
                yield Window(first, self._rows(blocks, num_examples)[mixed], (blocks, following))
            first += size

    def _plan(self, num_examples: int, seed: int, epoch: int) -> list[Blocks]:
        num_blocks = -(-num_examples // self.block_examples)
        shuffled = torch.randperm(num_blocks, generator=_generator(seed, "blocks", epoch))
        return [Blocks(epoch, tuple(part.tolist())) for part in shuffled.split(self.window_blocks)]

    def _size(self, block: int, num_examples: int) -> int:
        return min(self.block_examples, num_examples - block * self.block_examples)

    def _rows(self, blocks: Blocks, num_examples: int) -> Tensor:
        firsts = torch.tensor(blocks.numbers) * self.block_examples
        rows = (firsts[:, None] + torch.arange(self.block_examples)).flatten()
        return rows[rows < num_examples]


def make_order(kind: str, window_examples: int) -> Order:
    """The order "global", or "windowed" by windows of about `window_examples`, at least one block."""
    assert kind in ("global", "windowed")
    return WindowedOrder(max(1, window_examples // BLOCK_EXAMPLES)) if kind == "windowed" else GlobalOrder()


def in_batches(windows: Iterator[Window], batch_size: int, start: int) -> Iterator[tuple[Window, Tensor]]:
    """Batch `start` and those after it: rows `[B]`, the last batch what is left, and the window of its first row.

    windows: those of the order from position `start * batch_size` on.
    """
    rest = torch.empty(0, dtype=torch.int64)
    owner: Window | None = None
    for window in windows:
        rows = window.rows[max(0, start * batch_size - window.first) :]
        pieces = list(torch.cat([rest, rows]).split(batch_size)) if len(rest) else list(rows.split(batch_size))
        rest = pieces.pop() if len(pieces[-1]) < batch_size else rows[:0]
        for piece in pieces:
            yield owner or window, piece
            owner = None
        owner = (owner or window) if len(rest) else None
    if len(rest) and owner is not None:
        yield owner, rest


def step_seed(seed: int, purpose: str, *position: int) -> int:
    """A seed of 63 bits for one purpose at one position, unrelated to that of any other."""
    text = "/".join(map(str, (seed, purpose, *position)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _generator(seed: int, purpose: str, *position: int) -> torch.Generator:
    return torch.Generator().manual_seed(step_seed(seed, purpose, *position))
