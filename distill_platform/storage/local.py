"""A folder as a storage: temporary file, fsync, then hard link (create) or rename (write)."""

from __future__ import annotations

import builtins
import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distill_platform.errors import NotFound, StorageError
from distill_platform.storage.base import ABANDONED_S, Stored, UnfinishedUpload, checked_name

TEMPORARY = ".tmp-"
"""How the names of files in the making begin."""


class LocalStorage:
    """A folder. Folders are made on the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.uri = str(self.root)

    def path(self, name: str) -> Path:
        """Where an object is kept."""
        return self.root / checked_name(name)

    def read(self, name: str) -> bytes:
        with local_errors(self.path(name)):
            return self.path(name).read_bytes()

    def exists(self, name: str) -> bool:
        return self.path(name).is_file()

    def size_bytes(self, name: str) -> int:
        with local_errors(self.path(name)):
            return self.path(name).stat().st_size

    def list(self, prefix: str = "") -> builtins.list[str]:
        files = (path for path in self._files(prefix) if not path.name.startswith(TEMPORARY))
        return sorted(path.relative_to(self.root).as_posix() for path in files)

    def stat(self, prefix: str = "") -> dict[str, Stored]:
        found, now = {}, time.time()
        for name in self.list(prefix):
            with suppress(FileNotFoundError):  # deleted since it was listed
                known = self.path(name).stat()
                found[name] = Stored(known.st_size, max(0.0, now - known.st_mtime))
        return found

    def write(self, name: str, data: bytes) -> None:
        with local_errors(self.path(name)), temporary_beside(self.path(name)) as temporary:
            _write_durably(temporary, data)
            temporary.replace(self.path(name))

    def create(self, name: str, data: bytes) -> bool:
        with local_errors(self.path(name)), temporary_beside(self.path(name)) as temporary:
            _write_durably(temporary, data)
            try:
                os.link(temporary, self.path(name))
            except FileExistsError:
                return self._holds(name, data)
        return True

    def upload(self, local_path: Path, name: str) -> None:
        with local_errors(self.path(name)), temporary_beside(self.path(name)) as temporary:
            shutil.copyfile(local_path, temporary)
            _sync(temporary)
            temporary.replace(self.path(name))

    def download(self, name: str, local_path: Path) -> None:
        with local_errors(self.path(name)), temporary_beside(local_path) as temporary:
            shutil.copyfile(self.path(name), temporary)
            temporary.replace(local_path)

    def delete(self, name: str) -> None:
        with local_errors(self.path(name)):
            self.path(name).unlink(missing_ok=True)

    def child(self, prefix: str) -> LocalStorage:
        return LocalStorage(self.root / checked_name(prefix))

    def unfinished_uploads(
        self, prefix: str = "", older_than_s: float = ABANDONED_S
    ) -> builtins.list[UnfinishedUpload]:
        found, now = [], time.time()
        for path in self._files(prefix):
            if path.name.startswith(TEMPORARY):
                try:
                    age_s = now - path.stat().st_mtime
                except FileNotFoundError:  # its writer has just ended
                    continue
                if age_s > older_than_s:
                    found.append(UnfinishedUpload(path.relative_to(self.root).as_posix(), "", age_s))
        return sorted(found, key=lambda upload: upload.name)

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        self.delete(upload.name)

    def _files(self, prefix: str) -> Iterator[Path]:
        top = self.root / checked_name(prefix) if prefix else self.root
        return (Path(folder) / file for folder, _, names in os.walk(top) for file in names)

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.read(name) == data
        except NotFound:  # another's object, gone since
            return False


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """A path for a file in the making, on the disk where `path` will be; nothing is left there after."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def local_errors(path: Path) -> Iterator[None]:
    """Errors of this machine's disk in the platform's terms."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{path}: nothing is stored there") from error
    except OSError as error:
        advice = {errno.ENOSPC: "; free some space", errno.EACCES: "; check who owns the folder"}
        where = error.filename2 or path  # of a copy, the file that was being written
        raise StorageError(f"{where}: {error.strerror or error}{advice.get(error.errno or 0, '')}") from error


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
