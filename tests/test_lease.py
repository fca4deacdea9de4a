"""Of all drivers that want the same work, one does it; a dead one is replaced, a late one is fenced off."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from distill_platform import lease as leases
from distill_platform.errors import LeaseLost
from distill_platform.storage import LocalStorage


def hold_forever(folder: Path) -> None:
    leases.acquire(LocalStorage(folder), "work")
    (folder / "held").touch()
    time.sleep(60)


def test_one_at_a_time(tmp_path: Path) -> None:
    storage, inside, most = LocalStorage(tmp_path), [0], [0]

    def work() -> None:
        for _ in range(5):
            with leases.hold(storage, "work", ttl_s=60):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.01)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1


def test_the_lease_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=hold_forever, args=(tmp_path,))
    process.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.05)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    started = time.monotonic()
    with leases.hold(LocalStorage(tmp_path), "work", ttl_s=60) as held:
        assert held.generation == 2
    assert time.monotonic() - started < 5


def silence(held: leases.Lease) -> None:
    """The holder goes away without a word, as another machine would."""
    held._stop.set()
    held._renewer.join()


def test_a_silent_holder_elsewhere_is_replaced_after_the_ttl_and_fenced_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(tmp_path)
    monkeypatch.setattr(leases, "_is_dead", lambda holder: False)
    away = leases.acquire(storage, "work", ttl_s=0.5)
    silence(away)
    waited_for: list[str] = []
    started = time.monotonic()
    with leases.hold(storage, "work", ttl_s=0.5, on_wait=waited_for.append):
        assert time.monotonic() - started >= 0.5
        with pytest.raises(LeaseLost, match="generation 1 was superseded; another driver took this work over"):
            away.check()
    assert waited_for == [f"process {os.getpid()} on {os.uname().nodename}"]


def test_a_holder_that_beats_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    monkeypatch.setattr(leases, "_is_dead", lambda holder: False)
    held = leases.acquire(storage, "work", ttl_s=0.4)
    taken = threading.Event()

    def wait_for_it() -> None:
        with leases.hold(storage, "work", ttl_s=0.4):
            taken.set()

    waiter = threading.Thread(target=wait_for_it)
    waiter.start()
    assert not taken.wait(1.5)
    held.check()
    held.release()
    waiter.join()
    assert taken.is_set()


def test_setting_the_clock_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    leases.acquire(storage, "work").release()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with leases.hold(storage, "work", ttl_s=60) as held:
        assert held.generation == 2


def test_a_lease_is_taken_without_waiting_or_not_at_all(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    held = leases.acquire_free(storage, "work", ttl_s=60)
    assert held is not None
    assert leases.may_be_held(storage, "work")
    assert leases.acquire_free(storage, "work") is None
    held.release()
    assert not leases.may_be_held(storage, "work")
    again = leases.acquire_free(storage, "work")
    assert again is not None
    assert again.generation == 2
    again.release()


def test_who_was_away_while_others_came_and_went_does_not_hold_what_they_forgot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(tmp_path)
    leases.acquire(storage, "work").release()
    create = LocalStorage.create

    def late(self: LocalStorage, name: str, data: bytes) -> bool:
        monkeypatch.setattr(LocalStorage, "create", create)
        for _ in range(3):
            leases.acquire(storage, "work").release()
        late.holder = leases.acquire(storage, "work")
        return create(self, name, data)

    monkeypatch.setattr(LocalStorage, "create", late)
    assert leases.acquire_free(storage, "work") is None
    assert late.holder.generation == 5
    late.holder.check()
    late.holder.release()
