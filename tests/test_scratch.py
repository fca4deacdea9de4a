"""Scratch: made once, whole or absent, within its budget, and never taken from under a process that uses it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from distill_platform.errors import InputError, StorageError
from distill_platform.scratch import hold, make_once

PROCESS = """
import sys, time
from pathlib import Path
from distill_platform.scratch import make_once

def make(path):
    with Path(sys.argv[2]).open("a") as log:
        log.write("made\\n")
    path.write_bytes(b"x" * 1000)
    time.sleep(float(sys.argv[3]))

make_once(sys.argv[1], make, 1000)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISTILL_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def write(num_bytes: int = 1000) -> Callable[[Mapping[str, Path]], None]:
    def make(paths: Mapping[str, Path]) -> None:
        for path in paths.values():
            path.write_bytes(b"x" * num_bytes)

    return make


def put(name: str, num_bytes: int = 1000) -> Path:
    """An entry that nobody uses after; the next one is used measurably later."""
    held = hold([name], write(num_bytes), num_bytes)[name]
    held.release()
    time.sleep(0.02)
    return held.path


@contextmanager
def process(name: str, log: Path, make_s: float = 0.0) -> Iterator[subprocess.Popen[str]]:
    """Another process that makes and holds an entry until its input ends."""
    command = [sys.executable, "-c", PROCESS, name, str(log), str(make_s)]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def test_one_of_many_processes_makes_an_entry(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        process("files/a", log, 0.5) as first,
        process("files/a", log, 0.5) as second,
        process("files/a", log, 0.5) as third,
    ):
        for running in (first, second, third):
            assert running.stdout is not None
            assert running.stdout.readline() == "held\n"
    assert log.read_text() == "made\n"


def test_one_of_many_threads_makes_entries_that_overlap() -> None:
    made: list[str] = []

    def make(paths: Mapping[str, Path]) -> None:
        made.extend(paths)
        time.sleep(0.01)
        write()(paths)

    wanted = [["a", "b"], ["b", "a"], ["c", "b"], ["a", "c"], ["c"], ["b"]] * 3
    with ThreadPoolExecutor(len(wanted)) as pool:
        for held in pool.map(lambda names: hold(names, make), wanted):
            assert all(one.path.stat().st_size == 1000 for one in held.values())
    assert sorted(made) == ["a", "b", "c"]


def test_who_waits_for_a_killed_maker_makes_it_instead(tmp_path: Path, scratch: Path) -> None:
    with process("files/a", tmp_path / "log", make_s=600) as maker, ThreadPoolExecutor(1) as pool:
        wait_for(scratch / ".making" / "files/a" / "a")
        waiting = pool.submit(make_once, "files/a", lambda path: path.write_bytes(b"mine"))
        time.sleep(0.2)
        assert not waiting.done()
        maker.kill()
        assert waiting.result(timeout=10).read_bytes() == b"mine"
    assert not (scratch / ".making" / "files/a").exists()


def test_what_a_killed_maker_left_is_cleared_by_the_next_one_of_anything(tmp_path: Path, scratch: Path) -> None:
    with process("files/a", tmp_path / "log", make_s=600) as maker:
        wait_for(scratch / ".making" / "files/a" / "a")
        maker.kill()
        maker.wait()
    put("files/b")
    assert not (scratch / ".making" / "files/a").exists()
    assert not (scratch / ".locks" / "files/a").exists()


def test_the_least_recently_used_entry_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_SCRATCH_GB", str(2_500 / 1e9))
    a, b = put("files/a"), put("files/b")
    assert put("files/a") == a  # used again
    c = put("files/c")
    assert (a.exists(), b.exists(), c.exists()) == (True, False, True)
    folder = hold(["folders/d"], lambda paths: _write_folder(paths["folders/d"]), 2_000)["folders/d"].path
    assert (a.exists(), c.exists()) == (False, False)
    assert len(list(folder.iterdir())) == 2


def _write_folder(folder: Path) -> None:
    folder.mkdir()
    for name in ("1", "2"):
        (folder / name).write_bytes(b"x" * 1000)


def test_what_another_process_uses_is_not_evicted_while_it_lives(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILL_SCRATCH_GB", str(1_500 / 1e9))
    with process("files/a", tmp_path / "log") as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "held\n"
        with pytest.raises(
            StorageError, match=r"of 1,500 that are allowed, running processes use 1,000; raise DISTILL_"
        ):
            put("files/b")
        assert (scratch / "files/a").exists()
        user.kill()
        user.wait()
        put("files/b")
    assert not (scratch / "files/a").exists()


def test_a_held_entry_can_go_once_it_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_SCRATCH_GB", str(1_500 / 1e9))
    held = hold(["files/a"], write(), 1000)["files/a"]
    again = hold(["files/a"], write(), 1000)["files/a"]
    for user in (held, again):
        with pytest.raises(StorageError, match="do not fit"):
            put("files/b")
        user.release()
        user.release()
    put("files/b")
    assert not held.path.exists()


def test_what_is_being_made_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_SCRATCH_GB", str(2_500 / 1e9))
    begun, end = threading.Event(), threading.Event()

    def slowly(paths: Mapping[str, Path]) -> None:
        begun.set()
        end.wait(30)
        write(2_000)(paths)

    with ThreadPoolExecutor(1) as pool:
        making = pool.submit(hold, ["files/a"], slowly, 2_000)
        assert begun.wait(30)
        with pytest.raises(StorageError, match="do not fit"):
            put("files/b")
        end.set()
        making.result()["files/a"].release()
    put("files/b")


def test_without_a_budget_what_nobody_uses_leaves_before_the_disk_is_full(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = put("files/a")
    usage = type("usage", (), {"free": 500})
    monkeypatch.setattr("distill_platform.scratch.shutil.disk_usage", lambda path: usage)
    put("files/b")  # nine tenths of 1,500 bytes are for scratch
    assert not a.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_said_with_what_was_needed_and_leaves_nothing(scratch: Path) -> None:
    def write_to_a_full_device(path: Path) -> None:
        path.mkdir()
        (path / "whole").write_bytes(b"x" * 1000)
        (path / "values").symlink_to("/dev/full")
        (path / "values").write_bytes(b"x" * 1000)

    with pytest.raises(StorageError, match=r"the disk is full: columns/a takes about 3.000 GB, .* GB are free; free"):
        make_once("columns/a", write_to_a_full_device, 3_000_000_000)
    assert not (scratch / "columns/a").exists()
    assert list(scratch.rglob("whole")) == []


def test_a_failure_leaves_nothing_and_the_next_one_can_make_it(scratch: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        make_once("files/a", fail)
    assert not (scratch / "files/a").exists()
    assert not (scratch / ".making/files/a").exists()
    assert make_once("files/a", lambda path: path.write_bytes(b"whole")).read_bytes() == b"whole"  # type: ignore[func-returns-value]


def test_an_entry_that_was_deleted_by_hand_is_made_again(scratch: Path) -> None:
    path = make_once("files/a", lambda path: path.write_bytes(b"1"))  # type: ignore[arg-type, return-value]
    path.unlink()
    assert make_once("files/a", lambda path: path.write_bytes(b"2")).read_bytes() == b"2"  # type: ignore[arg-type, return-value]


def test_using_one_entry_again_and_again_takes_no_more_descriptors() -> None:
    make_once("files/a", lambda path: path.touch())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        make_once("files/a", lambda path: path.touch())
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("given", ["many", "-1", "0", "nan", "inf"])
def test_a_budget_that_is_no_number_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_SCRATCH_GB", given)
    with pytest.raises(InputError, match=f"DISTILL_SCRATCH_GB is '{given}'; wanted a number of gigabytes"):
        put("files/a")
