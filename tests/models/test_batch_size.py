"""Batches within memory, of the same size each time."""

from __future__ import annotations

import pytest
import torch

from distill_platform.data.schema import InputSpec
from distill_platform.models import Network, Standardize, build_network
from distill_platform.models.batch_size import (
    CACHE_BYTES,
    LARGEST,
    MEMORY_SHARE,
    batch_size_by_memory,
    batch_size_on_gpu,
    free_memory_bytes,
    working_set_bytes,
)

PLENTY = 2.0**40


def network(name: str, side: int) -> tuple[Network, torch.Tensor]:
    spec = InputSpec("image", (side, side, 1), "uint8", 0, 255)
    return build_network(name, {}, spec, 10, Standardize((0.0,), (1.0,)), 0).eval(), torch.zeros(
        4, side, side, 1, dtype=torch.uint8
    )


def test_the_working_set_is_what_the_largest_operation_reads_and_writes() -> None:
    cnn, sample = network("cnn", 28)
    one_activation = 32 * 28 * 28 * 4
    assert working_set_bytes(cnn, sample) == 2 * len(sample) * one_activation


@pytest.mark.parametrize(("name", "side"), [("cnn", 28), ("cnn", 8), ("resnet", 32), ("mlp", 28)])
def test_the_largest_operation_of_a_batch_fits_the_caches_and_that_of_twice_the_batch_does_not(
    name: str, side: int
) -> None:
    built, sample = network(name, side)
    size = batch_size_by_memory(built, sample, PLENTY)
    row_bytes = working_set_bytes(built, sample) / len(sample)
    assert size * row_bytes <= CACHE_BYTES
    assert size == LARGEST or 2 * size * row_bytes > CACHE_BYTES
    assert batch_size_by_memory(built, sample[:2], PLENTY) == size


def test_little_memory_makes_small_batches() -> None:
    built, sample = network("cnn", 28)
    row_bytes = working_set_bytes(built, sample) / len(sample)
    assert batch_size_by_memory(built, sample, memory_bytes=5 * row_bytes / MEMORY_SHARE) == 4
    assert batch_size_by_memory(built, sample, memory_bytes=0) == 1


def test_on_a_gpu_batches_are_doubled_until_the_rate_stops_rising() -> None:
    def rate(size: int) -> float:
        return min(size, 300) * 100.0

    assert batch_size_on_gpu(lambda size: None, rate) == 512


def test_on_a_gpu_that_is_full_a_quarter_of_what_did_not_fit_is_taken() -> None:
    def rate(size: int) -> float:
        if size > 256:
            raise torch.OutOfMemoryError
        return size * 1.0

    assert batch_size_on_gpu(lambda size: None, rate) == 128


def test_free_memory_is_below_that_of_the_machine() -> None:
    import psutil

    assert 0 < free_memory_bytes() <= psutil.virtual_memory().total
