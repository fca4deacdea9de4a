"""A renewable, fenced lease: of all drivers that want the same work, one does it.

Generation n is held by whoever created `<name>/<n>.json`; the highest generation counts. The holder proves that it is
alive by changing `<name>/<n>.beat`. A waiter takes generation n+1 when n was released, when its process is known to
be dead (same machine), or when the beat did not change for `ttl_s` on the waiter's own monotonic clock: no two clocks
are ever compared, so setting one back changes nothing.

A holder that was away (a suspended laptop) learns from `check` that it was fenced off. Commits are created only if
absent on top of that, so the worst a lost lease can cost is work done twice.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from distill_platform.errors import LeaseLost, NotFound, StorageError
from distill_platform.storage import Storage

TTL_S = 30.0
SILENT_S = 3600.0
"""Age of the last beat, by the storage's clock, from which on a holder elsewhere is gone however clocks may differ."""


class Lease:
    """A lease that is held. Made by `hold`."""

    def __init__(self, storage: Storage, name: str, generation: int, ttl_s: float) -> None:
        self.storage, self.name, self.generation, self.ttl_s = storage, name, generation, ttl_s
        self._stop = threading.Event()
        self._lost: str | None = None
        self._renewer = threading.Thread(target=self._renew, name=f"lease {name}", daemon=True)
        self._renewer.start()

    def check(self) -> None:
        """Raises LeaseLost if another driver holds a later generation."""
        if self._lost is None and _latest(self.storage, self.name) > self.generation:
            self._lost = f"generation {self.generation} was superseded"
        if self._lost is not None:
            raise LeaseLost(
                f"{self.storage.uri}/{self.name}: {self._lost}; another driver took this work over. "
                "Run again to attach to what it makes"
            )

    def release(self) -> None:
        """Let the next one in at once."""
        self._stop.set()
        self._renewer.join()
        self.storage.create(f"{self.name}/{self.generation:08d}.released", b"{}")

    def _renew(self) -> None:
        count = 0
        while not self._stop.wait(self.ttl_s / 4):
            count += 1
            with suppress(StorageError):  # a missed beat is what the ttl is for
                self.storage.write(f"{self.name}/{self.generation:08d}.beat", str(count).encode())


@contextmanager
def hold(
    storage: Storage, name: str, ttl_s: float = TTL_S, on_wait: Callable[[str], None] | None = None
) -> Iterator[Lease]:
    """Wait for the lease `name`, hold it inside, release it after. `on_wait` is told once who holds it."""
    lease = acquire(storage, name, ttl_s, on_wait)
    try:
        yield lease
    finally:
        lease.release()


def acquire(storage: Storage, name: str, ttl_s: float = TTL_S, on_wait: Callable[[str], None] | None = None) -> Lease:
    """As `hold`, for a caller that releases by itself."""
    seen: tuple[int, bytes] | None = None
    unchanged_since = time.monotonic()
    told = False
    while True:
        generation = _latest(storage, name)
        holder = _read_json(storage, f"{name}/{generation:08d}.json") if generation else None
        beat = (generation, _read(storage, f"{name}/{generation:08d}.beat"))
        if beat != seen:
            seen, unchanged_since = beat, time.monotonic()
        silent = time.monotonic() - unchanged_since > ttl_s
        if generation == 0 or silent or _is_over(storage, name, generation, holder):
            if lease := _take(storage, name, generation, ttl_s):
                return lease
            continue
        if on_wait is not None and not told and holder is not None:
            on_wait(f"process {holder.get('pid')} on {holder.get('host')}")
            told = True
        time.sleep(min(1.0, ttl_s / 10))


def may_be_held(storage: Storage, name: str) -> bool:
    """Whether somebody may hold the lease, told at once: a holder elsewhere counts until `SILENT_S` without a beat."""
    return _free_generation(storage, name) is None


def acquire_free(storage: Storage, name: str, ttl_s: float = TTL_S) -> Lease | None:
    """The lease if nobody can be holding it, else None: for work that is better left alone than waited for."""
    generation = _free_generation(storage, name)
    return None if generation is None else _take(storage, name, generation, ttl_s)


def forget(storage: Storage, name: str) -> None:
    """Remove a released lease whose work is committed: whoever comes next finds the work before it needs a lease."""
    for entry in storage.list(name):
        storage.delete(entry)


def _free_generation(storage: Storage, name: str) -> int | None:
    """The latest generation if nobody can be holding it, 0 if there was none; None if somebody may."""
    generation = _latest(storage, name)
    if generation == 0:
        return 0
    holder = _read_json(storage, f"{name}/{generation:08d}.json")
    if _is_over(storage, name, generation, holder):
        return generation
    ages_s = [entry.age_s for entry in storage.stat(name).values()]
    if _is_of_this_machine(holder) or min(ages_s, default=0.0) <= SILENT_S:
        return None
    return generation


def _take(storage: Storage, name: str, generation: int, ttl_s: float) -> Lease | None:
    """The lease of the generation after this one, if nobody else was quicker."""
    mine = json.dumps({"nonce": uuid.uuid4().hex, **_this_process()}).encode()
    if not storage.create(f"{name}/{generation + 1:08d}.json", mine):
        return None
    if _latest(storage, name) != generation + 1:  # since it was looked up it has been held, released and forgotten
        storage.delete(f"{name}/{generation + 1:08d}.json")
        return None
    _forget(storage, name, before=generation)
    return Lease(storage, name, generation + 1, ttl_s)


def _is_over(storage: Storage, name: str, generation: int, holder: dict[str, Any] | None) -> bool:
    if storage.exists(f"{name}/{generation:08d}.released"):
        return True
    return holder is not None and _is_dead(holder)


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the holder is a process of this very machine and namespace that no longer runs."""
    if not _is_of_this_machine(holder):
        return False
    try:
        return bool(psutil.Process(int(holder["pid"])).create_time() != holder["started"])
    except psutil.NoSuchProcess:
        return True


def _is_of_this_machine(holder: dict[str, Any] | None) -> bool:
    here = _this_process()
    return holder is not None and all(holder.get(field) == here[field] for field in ("host", "boot", "namespace"))


def _this_process() -> dict[str, Any]:
    namespace = "/proc/self/ns/pid"
    return {
        "host": socket.gethostname(),
        "boot": psutil.boot_time(),
        "namespace": os.readlink(namespace) if os.path.exists(namespace) else "",
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def _latest(storage: Storage, name: str) -> int:
    stems = (entry.rsplit("/", 1)[-1] for entry in storage.list(name))
    return max((int(stem.removesuffix(".json")) for stem in stems if stem.endswith(".json")), default=0)


def _forget(storage: Storage, name: str, before: int) -> None:
    for entry in storage.list(name):
        if int(entry.rsplit("/", 1)[-1].split(".")[0]) < before:
            storage.delete(entry)


def _read(storage: Storage, name: str) -> bytes:
    try:
        return storage.read(name)
    except NotFound:
        return b""


def _read_json(storage: Storage, name: str) -> dict[str, Any] | None:
    data = _read(storage, name)
    return json.loads(data) if data else None
