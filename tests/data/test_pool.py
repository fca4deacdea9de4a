"""A pool gives the rows of its files, whatever it was told; it is bounded, and faults of the disk are raised."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill_platform.data.columns import RawColumn
from distill_platform.data.order import Blocks
from distill_platform.data.pool import Pool, PooledColumn, fits_in_memory
from distill_platform.errors import Corrupt
from distill_platform.scratch import Held

NUM_ROWS = 205


@pytest.fixture(scope="module")
def columns(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[RawColumn, torch.Tensor]]:
    """Two columns of 205 rows: of one number each, and of 3 x 2 half-precision numbers."""
    folder = tmp_path_factory.mktemp("raw")
    rng = np.random.default_rng(0)
    values = {
        "count": rng.integers(0, 1000, NUM_ROWS),
        "logits": rng.standard_normal((NUM_ROWS, 3, 2)).astype(np.float16),
    }
    for name, array in values.items():
        array.tofile(folder / name)
    tensors = {name: torch.from_numpy(array) for name, array in values.items()}
    return {
        name: (RawColumn(folder / name, tensor.dtype, tuple(tensor.shape), Held(folder / name, -1)), tensor)
        for name, tensor in tensors.items()
    }


Make = Callable[..., Pool]


@pytest.fixture(scope="module")
def make_pool(columns: dict[str, tuple[RawColumn, torch.Tensor]]) -> Iterator[Make]:
    made: list[Pool] = []

    def make(block_rows: int = 16, max_blocks: int = 4) -> Pool:
        made.append(Pool({name: column for name, (column, _) in columns.items()}, block_rows, max_blocks))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.lists(st.integers(0, 12)), st.lists(st.integers(0, NUM_ROWS - 1)))))
def test_every_row_is_right_whatever_is_held(
    make_pool: Make,
    columns: dict[str, tuple[RawColumn, torch.Tensor]],
    calls: list[tuple[list[int], list[int]]],
) -> None:
    pool = make_pool()
    for blocks, rows in calls:
        pool.hold(blocks)
        index = torch.tensor(rows, dtype=torch.int64)
        for name, values in pool.take(index).items():
            assert torch.equal(values, columns[name][1][index]), name


def test_blocks_that_are_held_are_read_once_and_rows_beside_them_alone(
    make_pool: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    preadv = os.preadv

    def counted(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        sizes.append(len(buffers[0]))
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", counted)
    pool = make_pool()
    pool.hold([2, 5])
    for _ in range(5):
        pool.take(torch.arange(80, 96), "count")
        pool.take(torch.arange(32, 48), "count")
    pool.hold([5, 7])
    pool.take(torch.arange(80, 128)[::16], "count")
    assert sorted(sizes) == [8, *[16 * 8] * 3, *[16 * 12] * 3]  # one row of block 6; blocks 2, 5, 7 of both columns


def test_rows_stay_as_they_were_when_their_block_leaves(make_pool: Make) -> None:
    pool = make_pool(max_blocks=1)
    pool.hold([3])
    kept = pool.take(torch.arange(48, 64))
    before = {name: values.clone() for name, values in kept.items()}
    pool.hold([4])
    pool.take(torch.arange(64, 80))
    assert all(torch.equal(kept[name], before[name]) for name in kept)


def test_memory_is_bounded_by_the_number_of_blocks(make_pool: Make) -> None:
    pool = make_pool(block_rows=16, max_blocks=4)
    assert pool.num_bytes == 4 * 16 * (8 + 12)
    pool.hold(range(13))
    assert len(pool.take(torch.arange(NUM_ROWS))["count"]) == NUM_ROWS
    assert pool.num_bytes == 4 * 16 * (8 + 12)


def test_rows_that_are_not_there_are_refused(make_pool: Make) -> None:
    pool = make_pool()
    for rows in ([-1], [NUM_ROWS]):  # block 12 ends at row 207
        with pytest.raises(IndexError, match=f"there are {NUM_ROWS}"):
            pool.take(torch.tensor(rows))


def test_a_file_that_ends_too_early_is_refused_with_its_name(
    columns: dict[str, tuple[RawColumn, torch.Tensor]], tmp_path: Path
) -> None:
    whole = columns["logits"][0]
    path = tmp_path / "cut"
    path.write_bytes(whole.path.read_bytes()[:-5])
    pool = Pool({"cut": RawColumn(path, whole.dtype, whole.shape, Held(path, -1))}, 16, 4)
    pool.hold([12])
    for rows in ([NUM_ROWS - 1], [NUM_ROWS - 1, 0]):
        with pytest.raises(Corrupt, match=f"{path}: the file ends at byte {NUM_ROWS * 12 - 5}"):
            pool.take(torch.tensor(rows))
    pool.close()


def test_blocks_of_whole_pages_are_read_past_the_page_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.arange(8192 * 5, dtype=torch.int64)
    values.numpy().tofile(tmp_path / "values")
    try:
        os.close(os.open(tmp_path / "values", os.O_RDONLY | os.O_DIRECT))
    except (AttributeError, OSError):
        pytest.skip("this file system has no O_DIRECT")
    direct: list[bool] = []
    preadv = os.preadv

    def watched(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        direct.append(bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT))
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", watched)
    column = RawColumn(tmp_path / "values", values.dtype, tuple(values.shape), Held(tmp_path, -1))
    pool = Pool({"values": column}, block_rows=4096, max_blocks=3)
    pool.hold([9, 0, 4])
    index = torch.tensor([9 * 4096 + 5, 3, 4 * 4096])
    assert torch.equal(pool.take(index)["values"], values[index])
    assert direct == [True] * 3
    pool.close()


def test_a_pooled_column_stands_in_for_a_tensor(
    make_pool: Make, columns: dict[str, tuple[RawColumn, torch.Tensor]]
) -> None:
    column, values = columns["logits"]
    pooled = PooledColumn(make_pool(), "logits", column)
    pooled.prefetch([Blocks(0, (3, 1)), Blocks(1, (2,))])
    index = torch.tensor([50, 20, 20, 33, 200])
    assert torch.equal(pooled.index_select(0, index), values.index_select(0, index))
    assert (len(pooled), pooled.shape, pooled.dtype) == (NUM_ROWS, values.shape, values.dtype)


def test_what_fits_in_memory_is_a_share_of_the_machines() -> None:
    assert fits_in_memory(1)
    assert not fits_in_memory(psutil.virtual_memory().total)
