"""Calls over workers: each item once, in spite of workers that die."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from ray.exceptions import RayActorError

from distill_platform.cluster import over_workers
from distill_platform.errors import DataError


def test_every_item_is_done_once(ray_session: None) -> None:
    assert sorted(over_workers(lambda: lambda item: item * 2, range(20), num_workers=2)) == list(range(0, 40, 2))
    assert list(over_workers(lambda: lambda item: item, [], num_workers=2)) == []


def test_items_added_while_results_are_taken_are_done_too(ray_session: None) -> None:
    queue = list(range(3))
    results = []
    for result in over_workers(lambda: lambda item: item, queue, num_workers=2):
        results.append(result)
        if len(results) == 3:
            queue.extend([10, 11])
    assert sorted(results) == [0, 1, 2, 10, 11]


def test_a_worker_that_dies_is_replaced_and_its_item_done_again(ray_session: None, tmp_path: Path) -> None:
    def make() -> Callable[[int], int]:
        def call(item: int) -> int:
            if item == 3 and not (tmp_path / "died").exists():
                (tmp_path / "died").touch()
                os._exit(1)
            return item

        return call

    assert sorted(over_workers(make, range(6), num_workers=2)) == list(range(6))
    assert (tmp_path / "died").exists()


def test_an_item_that_kills_every_worker_ends_the_work(ray_session: None) -> None:
    with pytest.raises(RayActorError):
        list(over_workers(lambda: lambda item: os._exit(1), [1], num_workers=1))


def test_an_exception_of_a_call_is_raised_as_itself(ray_session: None) -> None:
    def make() -> Callable[[int], int]:
        def call(item: int) -> int:
            raise DataError(f"row {item} is bad")

        return call

    with pytest.raises(DataError, match="row 1 is bad"):
        list(over_workers(make, [1], num_workers=1))
