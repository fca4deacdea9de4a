"""Calls spread over warm Ray workers, each finished call handed back as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError

T = TypeVar("T")
R = TypeVar("R")

RETRIES = 3
"""How often a worker that died is started again, and its call repeated."""


def over_workers(
    make: Callable[[], Callable[[T], R]],
    items: Sequence[T],
    num_workers: int,
    num_cpus: float = 1,
    num_gpus: float = 0,
) -> Iterator[R]:
    """Results of `make()(item)` for every item, in the order in which they finish.

    Each worker calls `make` once and takes items from one queue. A worker that dies is replaced and its item done
    again, so calls must be repeatable. An exception of a call is raised here as itself.
    """

    class Worker:
        def __init__(self) -> None:
            self.call = make()

        def run(self, item: T) -> R:
            return self.call(item)

    options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "max_restarts": RETRIES, "max_task_retries": RETRIES}
    remote = ray.remote(**options)(Worker)
    waiting = list(reversed(items))
    workers = [remote.remote() for _ in range(min(num_workers, len(items)))]
    running: dict[Any, Any] = {worker.run.remote(waiting.pop()): worker for worker in workers}
    try:
        while running:
            done, _ = ray.wait(list(running), num_returns=1)
            worker = running.pop(done[0])
            if waiting:
                running[worker.run.remote(waiting.pop())] = worker
            yield _result(done[0])
    finally:
        for worker in workers:
            ray.kill(worker)


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from None
        raise
