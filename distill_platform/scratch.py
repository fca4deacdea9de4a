"""The folder on this machine's own disk for what can be made again: fetched files and memory maps.

Everything in it is named by the sha256 of what it was made from, so processes share it, nothing in it goes stale, and
deleting it costs time alone.

    <scratch>/<name>            an entry: a file or a folder, there only when it is whole; locked by all that use it
    <scratch>/.locks/<name>     locked by the one that makes or evicts the entry. Holds the entry's size in bytes, and
                                its date is that of the last use
    <scratch>/.making/<name>/   what is being made; where nobody holds the lock it is litter

Locks are the kernel's (flock): they go with the process that holds them, however it ends.

Entries that nobody uses are evicted, the least recently used first, before an entry is made that would not fit into
`$DISTILL_SCRATCH_GB`. Without that variable the bound is nine tenths of what the disk could give: all of this can be
made again, so it has to leave before a disk is full and stops what cannot.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from distill_platform.errors import InputError, StorageError

SHARE_OF_DISK = 0.9
_LOCKS, _MAKING, _BUDGET = ".locks", ".making", ".budget"


def scratch_dir() -> Path:
    """`$DISTILL_SCRATCH`, else `~/.cache/distill-platform`."""
    return Path(os.environ.get("DISTILL_SCRATCH", "~/.cache/distill-platform")).expanduser()


class Held:
    """An entry in use: it is not evicted before `release`, or before this process ends."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock

    def release(self) -> None:
        """Let the entry be evicted. A second call does nothing."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


_KEPT: dict[Path, Held] = {}


def make_once(name: str, make: Callable[[Path], None], size_bytes: int = 0) -> Path:
    """The file or folder `name` in scratch, made by `make(temporary path)` if it is not there.

    As `hold`, of one entry that this process uses as long as it lives.
    """
    held = hold([name], lambda paths: make(paths[name]), size_bytes)[name]
    before, _KEPT[held.path] = _KEPT.get(held.path), held
    if before is not None:
        before.release()
    return held.path


def hold(names: Sequence[str], make: Callable[[Mapping[str, Path]], None], size_bytes: int = 0) -> dict[str, Held]:
    """Entries of scratch, held against eviction; `make(name -> temporary path)` makes those that are not there.

    Of many processes and threads one makes an entry while the others wait; should it be killed, the next one makes it.
    Entries appear by a rename, flushed to disk, so they are whole or absent. `size_bytes` is about what all of them
    take.

    Raises StorageError if they do not fit beside what is in use, or if the disk is full.
    """
    root = scratch_dir()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{root} cannot hold scratch files ({error.strerror}); set DISTILL_SCRATCH") from error
    held: dict[str, Held] = {}
    try:
        while True:
            held |= {name: entry for name in names if name not in held and (entry := _use(root, name)) is not None}
            missing = sorted(set(names) - set(held))  # locks are taken in one order: no deadlock
            if not missing:
                return held
            with ExitStack() as stack:
                for name in missing:
                    stack.callback(os.close, _lock(root / _LOCKS / name))
                missing = [name for name in missing if not (root / name).exists()]  # others made some meanwhile
                held |= _make(root, missing, make, size_bytes) if missing else {}
    except BaseException:
        for entry in held.values():
            entry.release()
        raise


def _use(root: Path, name: str) -> Held | None:
    """An entry that is there, locked against eviction; None if it is not."""
    while True:
        try:
            lock = os.open(root / name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        fcntl.flock(lock, fcntl.LOCK_SH)
        if _is_open_at(root / name, lock):
            with suppress(FileNotFoundError):
                os.utime(root / _LOCKS / name)
            return Held(root / name, lock)
        os.close(lock)  # evicted just now


def _make(
    root: Path, names: Sequence[str], make: Callable[[Mapping[str, Path]], None], size_bytes: int
) -> dict[str, Held]:
    paths = {name: root / _MAKING / name / Path(name).name for name in names}
    held: dict[str, Held] = {}
    try:
        with _full_disk_explained(root, names, size_bytes):
            _make_room(root, names, size_bytes)
            for path in paths.values():
                _remove(path.parent)  # of one that was killed here
                path.parent.mkdir(parents=True)
            make(paths)
            for name, path in paths.items():
                _sync(path)
                (root / _LOCKS / name).write_text(str(_size_bytes(path)))
                lock = os.open(path, os.O_RDONLY)
                fcntl.flock(lock, fcntl.LOCK_SH)
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                path.rename(root / name)
                held[name] = Held(root / name, lock)
    except BaseException:
        for entry in held.values():
            entry.release()
        raise
    finally:
        for path in paths.values():
            _remove(path.parent)
    return held


def _make_room(root: Path, names: Sequence[str], size_bytes: int) -> None:
    """Evict what nobody uses until `size_bytes` more fit, and take note of them; clear what killed makers left."""
    lock = _lock(root / _BUDGET)
    try:
        used, idle = 0, []
        for path in _notes(root):
            name = path.relative_to(root / _LOCKS).as_posix()
            if name not in names and (entry := _look_at(root, name)) is not None:
                last_use_s, size, is_idle = entry
                used += size
                idle += [(last_use_s, size, name)] if is_idle else []
        limit = _limit_bytes(root, used)
        for _, size, name in sorted(idle):
            if used + size_bytes <= limit:
                break
            used -= size if _evict(root, name) else 0
        if used + size_bytes > limit:
            raise StorageError(
                f"{root}: {size_bytes:,} bytes more do not fit: of {int(limit):,} that are allowed, running processes "
                f"use {used:,}; raise DISTILL_SCRATCH_GB, free some disk, or set DISTILL_SCRATCH to a folder on a "
                "larger one"
            )
        for name in names:
            (root / _LOCKS / name).write_text(str(size_bytes if name == names[0] else 0))
    finally:
        os.close(lock)


def _look_at(root: Path, name: str) -> tuple[float, int, bool] | None:
    """(last use, size in bytes, whether nobody uses it) of an entry; None once the litter of a dead maker is gone."""
    note = root / _LOCKS / name
    try:
        with _alone(root, name) as is_idle:
            if is_idle and not (root / name).exists():
                _remove(root / _MAKING / name)
                note.unlink()
                return None
            return note.stat().st_mtime, int(note.read_text() or 0), is_idle
    except FileNotFoundError:  # deleted by hand
        return None


def _evict(root: Path, name: str) -> bool:
    with _alone(root, name) as is_idle:
        if is_idle:
            _remove(root / name)
            (root / _LOCKS / name).unlink(missing_ok=True)
        return is_idle


@contextmanager
def _alone(root: Path, name: str) -> Iterator[bool]:
    """Whether nobody makes or uses an entry; while inside, nobody begins to."""
    with ExitStack() as stack:
        for path, flags in ((root / _LOCKS / name, os.O_RDWR), (root / name, os.O_RDONLY)):
            try:
                lock = os.open(path, flags)
            except FileNotFoundError:
                continue
            stack.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
        yield True


def _limit_bytes(root: Path, used: int) -> float:
    given = os.environ.get("DISTILL_SCRATCH_GB")
    if given is None:
        return SHARE_OF_DISK * (shutil.disk_usage(root).free + used)
    try:
        limit = float(given) * 1e9
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise InputError(f"DISTILL_SCRATCH_GB is {given!r}; wanted a number of gigabytes above 0")
    return limit


def _lock(path: Path) -> int:
    """Wait for a lock, made if it is not there; gives the descriptor that holds it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_open_at(path, lock):
            return lock
        os.close(lock)  # its entry was evicted while this one waited: the lock that counts is a new file


def _is_open_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _notes(root: Path) -> Iterator[Path]:
    return (Path(folder) / file for folder, _, files in os.walk(root / _LOCKS) for file in files)


@contextmanager
def _full_disk_explained(root: Path, names: Sequence[str], size_bytes: int) -> Iterator[None]:
    try:
        yield
    except (OSError, StorageError) as error:
        faults = (error, error.__cause__)
        if not any(isinstance(fault, OSError) and fault.errno in (errno.ENOSPC, errno.EDQUOT) for fault in faults):
            raise
        for name in names:
            _remove(root / _MAKING / name)
        raise StorageError(
            f"{root}: the disk is full: {', '.join(names)} takes about {size_bytes / 1e9:.3f} GB, "
            f"{shutil.disk_usage(root).free / 1e9:.3f} GB are free; free some, or set DISTILL_SCRATCH to a folder on "
            "a larger disk"
        ) from error


def _size_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _sync(path: Path) -> None:
    """Flush an entry: after a power cut its name must not stand for bytes that never reached the disk."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()
