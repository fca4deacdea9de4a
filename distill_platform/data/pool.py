"""Columns larger than memory: a bounded pool of blocks of rows, read ahead by threads, from which rows are copied out.

Why not a memory map with madvise: a map's pages are evicted by the kernel's choice, count against a memory cgroup as
they come, and a failed read ends the process with SIGBUS. Here memory is allocated once, and reads that fail raise.

Blocks go from disk to the pool without the page cache (O_DIRECT) where rows and file system allow it: that takes a
quarter of the CPU time of buffered reads (measured, 0.8 MB blocks), and pushes nobody else's pages out. Elsewhere the
pages that were read are given back at once.
"""

from __future__ import annotations

import errno
import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from distill_platform.data.columns import RawColumn
from distill_platform.data.order import Blocks
from distill_platform.errors import Corrupt

PAGE_BYTES = 4096
READ_BYTES = 1 << 28
"""Of one system call: Linux stops below 2 GiB, and another thread may want the disk."""
NUM_THREADS = 4
SHARE_OF_MEMORY = 0.5
"""What maps may take of a machine's memory before their pages push each other out: the rest is for models."""
_ABSENT = -(1 << 62)


class Pool:
    """Up to `max_blocks` blocks of `block_rows` rows of some columns of equal length, in memory of fixed size.

    Used by one thread. Gives the right rows whatever is asked; a row of a block that it was not told to hold is read
    by itself, which is slow.
    """

    def __init__(
        self, columns: Mapping[str, RawColumn], block_rows: int, max_blocks: int, num_threads: int = NUM_THREADS
    ) -> None:
        (self.num_rows,) = {column.shape[0] for column in columns.values()}
        num_blocks = -(-self.num_rows // block_rows)
        max_blocks = min(max_blocks, num_blocks)
        self.block_rows = block_rows
        self._files = {name: _BlockFile(column, block_rows, max_blocks) for name, column in columns.items()}
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="distill-pool")
        self._free = list(range(max_blocks))
        self._slots: dict[int, int] = {}  # block -> its place in memory
        self._loading: dict[int, list[Future[None]]] = {}  # those of `_slots` that are not known to be complete
        self._shifts = torch.full((num_blocks,), _ABSENT)  # from a row's number to its place in memory, by block

    @property
    def num_bytes(self) -> int:
        """Memory that the blocks take."""
        return sum(file.memory.nbytes for file in self._files.values())

    def hold(self, blocks: Iterable[int]) -> None:
        """From now on, hold these blocks and no others; those that are missing are read by threads, in this order.

        Of more than `max_blocks` the first are held.
        """
        wanted = dict.fromkeys(blocks)
        for block in [held for held in self._slots if held not in wanted]:
            self._drop(block)
        for block in wanted:
            if block not in self._slots and self._free:
                slot = self._slots[block] = self._free.pop()
                files = self._files.values()
                self._loading[block] = [self._threads.submit(file.read_block, block, slot) for file in files]

    def take(self, rows: Tensor, *names: str) -> dict[str, Tensor]:
        """Rows `[B]` int64 of the named columns, of all without names, copied out: `[B, …]` each.

        Raises IndexError for a row that is not there, Corrupt if a file ends too early, OSError if it cannot be read.
        """
        files = {name: self._files[name] for name in names or self._files}
        if not len(rows):
            return {name: file.values[:0].clone() for name, file in files.items()}
        low, high = (int(bound) for bound in torch.aminmax(rows))
        if low < 0 or high >= self.num_rows:
            raise IndexError(f"rows {low} to {high} were asked for; there are {self.num_rows}")
        places = self._places(rows)
        if int(places.min()) >= 0:
            return {name: file.values.index_select(0, places) for name, file in files.items()}
        absent = torch.nonzero(places < 0).flatten()
        places[absent] = 0
        found = {name: file.values.index_select(0, places) for name, file in files.items()}
        for name, file in files.items():
            found[name][absent] = file.read_rows(rows[absent])
        return found

    def close(self) -> None:
        """Stop reading, and let the files' scratch entries be evicted. The pool cannot be used any more."""
        for block in list(self._slots):
            self._drop(block)
        self._threads.shutdown()
        for file in self._files.values():
            file.close()

    def _places(self, rows: Tensor) -> Tensor:
        """Where each row is in memory, below 0 if it is not; waits for those that are on their way."""
        blocks = rows // self.block_rows
        places = self._shifts.index_select(0, blocks).add_(rows)
        if self._loading and int(places.min()) < 0:
            for block in torch.unique(blocks[places < 0]).tolist():
                for read in self._loading.get(block, ()):
                    read.result()
                if self._loading.pop(block, None) is not None:
                    self._shifts[block] = (self._slots[block] - block) * self.block_rows
            places = self._shifts.index_select(0, blocks).add_(rows)
        return places

    def _drop(self, block: int) -> None:
        for read in self._loading.pop(block, ()):
            if not read.cancel():
                read.exception()  # waits: its memory is about to be another block's
        self._shifts[block] = _ABSENT
        self._free.append(self._slots.pop(block))


class PooledColumn:
    """A column `[N, …]` of a pool; stands in for a tensor whose rows are copied out by `index_select`."""

    def __init__(self, pool: Pool, name: str, column: RawColumn) -> None:
        self.pool, self.name = pool, name
        self.dtype, self.shape = column.dtype, torch.Size(column.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Rows `index` `[B]`, as of a tensor; `dim` is 0."""
        assert dim == 0
        return self.pool.take(index, self.name)[self.name]

    def prefetch(self, reads: Sequence[Blocks]) -> None:
        """Hold the blocks of these reads alone."""
        self.pool.hold(number for blocks in reads for number in blocks.numbers)

    def close(self) -> None:
        """Close the pool."""
        self.pool.close()


def fits_in_memory(num_bytes: int) -> bool:
    """Whether columns of so many bytes may be mapped and read in any order: they take at most half of the memory.

    The memory is the machine's, or what the process's cgroup is allowed of it.
    """
    return num_bytes <= SHARE_OF_MEMORY * min([psutil.virtual_memory().total, *_cgroup_limits()])


def _cgroup_limits() -> list[int]:
    """As a container sees its own cgroup, version 2 and version 1; empty without one."""
    files = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    texts = [file.read_text().strip() for file in files if file.exists()]
    return [int(text) for text in texts if text.isdecimal()]


class _BlockFile:
    """A raw file, and the memory for its blocks."""

    def __init__(self, column: RawColumn, block_rows: int, max_blocks: int) -> None:
        self.column, self.block_bytes = column, block_rows * column.row_bytes
        self.memory = _aligned(max_blocks * self.block_bytes)
        self.values = torch.from_numpy(self.memory).view(column.dtype).view(-1, *column.shape[1:])
        self._descriptor = os.open(column.path, os.O_RDONLY)
        self._direct = _open_direct(column.path) if self.block_bytes % PAGE_BYTES == 0 else None
        opened = [one for one in (self._descriptor, self._direct) if one is not None]
        self.close = weakref.finalize(self, _close, opened, column)

    def read_block(self, block: int, slot: int) -> None:
        """Fill a slot; what lies beyond the last row stays as it is."""
        begin = slot * self.block_bytes
        offset = block * self.block_bytes
        num_bytes = min(self.block_bytes, self.column.shape[0] * self.column.row_bytes - offset)
        self._read(self.memory.data[begin : begin + self.block_bytes], offset, num_bytes, self._direct)

    def read_rows(self, rows: Tensor) -> Tensor:
        """Rows `[B]` from disk, runs of neighbours at once."""
        order = np.argsort(rows.numpy(), kind="stable")
        sorted_rows = rows.numpy()[order]
        width = self.column.row_bytes
        memory = np.empty(len(rows) * width, np.uint8)
        bounds = [0, *(np.flatnonzero(np.diff(sorted_rows) != 1) + 1).tolist(), len(rows)]
        for first, last in pairwise(bounds):
            run = memory.data[first * width : last * width]
            self._read(run, int(sorted_rows[first]) * width, len(run), None)
        values = torch.from_numpy(memory).view(self.column.dtype).view(-1, *self.column.shape[1:])
        return torch.empty_like(values).index_copy_(0, torch.from_numpy(order), values)

    def _read(self, memory: memoryview, offset: int, num_bytes: int, direct: int | None) -> None:
        """At least `num_bytes` from `offset` on, into memory that may have room for more: direct reads are of pages."""
        done = 0
        while done < num_bytes:
            into = memory[done : done + READ_BYTES]
            got = os.preadv(self._descriptor if direct is None else direct, [into], offset + done)
            if not got:
                where = f"{self.column.path}: the file ends at byte {offset + done}"
                raise Corrupt(f"{where}, wanted {offset + num_bytes}; delete it, it is made again")
            done += got
        if direct is None and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, offset, num_bytes, os.POSIX_FADV_DONTNEED)


def _aligned(num_bytes: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Memory that starts at a page."""
    raw = np.empty(num_bytes + PAGE_BYTES, np.uint8)
    start = -raw.ctypes.data % PAGE_BYTES
    return raw[start : start + num_bytes]


def _open_direct(path: Path) -> int | None:
    """A descriptor whose reads pass the page cache by; None where the system or the file system has none."""
    flag = getattr(os, "O_DIRECT", None)
    if flag is None:
        return None
    try:
        return os.open(path, os.O_RDONLY | flag)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None


def _close(descriptors: Sequence[int], column: RawColumn) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
    column.held.release()
