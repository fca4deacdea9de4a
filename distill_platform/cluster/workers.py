"""Calls spread over warm Ray workers, each finished call handed back as soon as it is there.

A worker is one process, or a group of processes that do each call together (`group.py`): what a teacher needs that is
larger than one GPU.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError, RayTaskError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

T = TypeVar("T")
R = TypeVar("R")

RETRIES = 3
"""How often an item is done again after a worker died over it."""
PEERS_S = 10.0
"""How long a group that failed is asked which of its members died: the others only see a connection that broke."""

log = logging.getLogger(__name__)


def over_workers(
    make: Callable[[], Callable[[T], R]],
    items: Sequence[T],
    num_workers: int,
    num_cpus: float = 1,
    num_gpus: float = 0,
    group_size: int = 1,
) -> Iterator[R]:
    """Results of `make()(item)` for every item, in the order in which they finish.

    Each worker calls `make` once and takes the next item. A list may grow while results are taken: what is added before
    the next result is asked for is done too. A worker that dies is replaced and its item done again, so calls must be
    repeatable; RayActorError is raised for an item over which more than RETRIES died. An exception of a call is raised
    here as itself.

    group_size: processes of one worker. All of them do each item; the result is that of rank 0. CPUs and GPUs are
    counted per process. If one dies, its whole group is replaced.
    """
    remote = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus)(_actor(make))
    bundle = {name: amount for name, amount in (("CPU", num_cpus), ("GPU", num_gpus)) if amount}
    idle: list[_Crew] = []
    running: dict[Any, _Turn] = {}
    num_hired = num_begun = 0
    try:
        while running or num_begun < len(items):
            while num_begun < len(items) and (idle or num_hired < num_workers):
                num_hired += not idle
                turn = _Turn.begin(idle.pop() if idle else _Crew(remote, bundle, group_size), items[num_begun])
                num_begun += 1
                running.update(dict.fromkeys(turn.calls, turn))
            done = ray.wait(list(running), num_returns=1)[0][0]
            turn = running[done]
            try:
                turn.check(done)
            except RayActorError as error:
                running = {call: other for call, other in running.items() if other is not turn}
                turn.crew.end()
                if turn.num_lost == RETRIES:
                    raise
                log.warning("a worker died; its work is done again: %s", str(error).splitlines()[0])
                again = _Turn.begin(_Crew(remote, bundle, group_size), turn.item, turn.num_lost + 1)
                running.update(dict.fromkeys(again.calls, again))
                continue
            del running[done]
            if not any(call in running for call in turn.calls):
                idle.append(turn.crew)
                yield ray.get(turn.calls[0])
    finally:
        for crew in {*idle, *(turn.crew for turn in running.values())}:
            crew.end()


def _actor(make: Callable[[], Callable[[T], R]]) -> type:
    class Worker:
        def __init__(self) -> None:
            self.door: Any = None
            self.call: Callable[[T], R] | None = None

        def open_door(self) -> tuple[str, int]:
            from distill_platform.cluster.group import Door

            self.door = door = Door()
            return door.address

        def run(self, item: T, rank: int, size: int, address: tuple[str, int] | None) -> R | None:
            if self.call is None:
                if address is not None:
                    from distill_platform.cluster.group import join

                    join(address, rank, size, self.door)
                self.call = make()
            result = self.call(item)
            return result if rank == 0 else None

    return Worker


class _Crew:
    """The processes of one worker, and room reserved for all of them at once: half a group can do nothing."""

    def __init__(self, remote: Any, bundle: dict[str, float], size: int) -> None:
        self.room = placement_group([bundle] * size, strategy="PACK") if size > 1 else None
        places = (
            [{"scheduling_strategy": PlacementGroupSchedulingStrategy(self.room, index)} for index in range(size)]
            if self.room
            else [{}]
        )
        self.actors = [remote.options(**place).remote() for place in places]
        self.address = self.actors[0].open_door.remote() if size > 1 else None

    def start(self, item: Any) -> tuple[Any, ...]:
        size = len(self.actors)
        return tuple(actor.run.remote(item, rank, size, self.address) for rank, actor in enumerate(self.actors))

    def end(self) -> None:
        for actor in self.actors:
            ray.kill(actor)
        if self.room is not None:
            remove_placement_group(self.room)


@dataclass(frozen=True)
class _Turn:
    """An item in the hands of a crew: a call for each of its processes."""

    crew: _Crew
    item: Any
    calls: tuple[Any, ...]
    num_lost: int

    @classmethod
    def begin(cls, crew: _Crew, item: Any, num_lost: int = 0) -> _Turn:
        return cls(crew, item, crew.start(item), num_lost)

    def check(self, done: Any) -> None:
        """Raises RayActorError if a member died, else what a call that is done raised, as itself."""
        try:
            ray.get(done)
        except RayTaskError as error:
            self._raise_if_dead()
            if isinstance(error.cause, Exception):
                raise error.cause from None
            raise

    def _raise_if_dead(self) -> None:
        """The members of a group whose peer died fail too, of a broken connection, and may be heard first."""
        timeout_s = PEERS_S if len(self.calls) > 1 else 0
        ended, _ = ray.wait(list(self.calls), num_returns=len(self.calls), timeout=timeout_s)
        for call in ended:
            with suppress(RayTaskError):
                ray.get(call)
