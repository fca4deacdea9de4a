"""The files of a source: listed and opened alike whether they lie in a folder or on S3."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from distill_platform.errors import DataError
from distill_platform.fingerprint import sha256_file
from distill_platform.storage import LocalStorage, Storage, open_file, open_storage


@dataclass(frozen=True)
class StoredFile:
    """One file of a source."""

    storage: Storage
    name: str

    @contextmanager
    def local(self) -> Iterator[Path]:
        """The file on this machine's disk; one that had to be fetched is removed after."""
        if isinstance(self.storage, LocalStorage):
            yield self.storage.path(self.name)
            return
        with tempfile.TemporaryDirectory(prefix="distill-source-") as folder:
            path = Path(folder) / PurePosixPath(self.name).name
            self.storage.download(self.name, path)
            yield path

    def read(self) -> bytes:
        """All its bytes."""
        return self.storage.read(self.name)

    @property
    def size_bytes(self) -> int | None:
        """None where it would have to be fetched to know."""
        return self.storage.path(self.name).stat().st_size if isinstance(self.storage, LocalStorage) else None


def find_files(uri: str, suffixes: tuple[str, ...]) -> list[StoredFile]:
    """The file `uri`, or the files below the folder `uri` that end in one of the suffixes, in order of their names.

    Raises DataError if there are none.
    """
    if uri.lower().endswith(suffixes):
        storage, name = open_file(uri)
        if storage.exists(name):
            return [StoredFile(storage, name)]
    folder = open_storage(uri)
    names = folder.list()
    found = [StoredFile(folder, name) for name in names if name.lower().endswith(suffixes)]
    if not found:
        got = f"{len(names)} other files, such as {names[0]}" if names else "nothing"
        raise DataError(f"{uri}: no {' or '.join(suffixes)} file there; found {got}. Correct the path in data.source")
    return found


def total_bytes(files: list[StoredFile]) -> int | None:
    """Their size together; None where it would have to be fetched to know."""
    sizes = [file.size_bytes for file in files]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def digest_of(files: list[StoredFile]) -> list[list[str]]:
    """[name, sha256] of each, read in pieces and several at a time."""

    def sha256(file: StoredFile) -> str:
        with file.local() as path:
            return sha256_file(path)

    with ThreadPoolExecutor(8) as pool:
        return [[file.name, digest] for file, digest in zip(files, pool.map(sha256, files), strict=True)]


def digest_of_arrays(arrays: list[bytes]) -> str:
    """sha256 over the hashes of byte strings, so that their borders count."""
    return hashlib.sha256(b"".join(hashlib.sha256(array).digest() for array in arrays)).hexdigest()
