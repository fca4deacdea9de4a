"""One URI -> one filesystem. A local folder and `s3://bucket/prefix` answer to the same few calls.

Every write is whole: a reader sees the old object, the new one, or none, and never a part. `create` is the one
primitive for agreement between processes: of many callers, one is told True.

base.py         what every storage answers to
local.py        a folder: temporary file, fsync, then hard link (create) or rename (write)
s3.py           a bucket's prefix: one PUT, `If-None-Match: *` for create
connection.py   one request to S3, retried until its answer is whole
transfer.py     files to and from S3, large ones in parts side by side
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from distill_platform.errors import InputError
from distill_platform.storage.base import ABANDONED_S, Storage, Stored, UnfinishedUpload
from distill_platform.storage.connection import ATTEMPTS
from distill_platform.storage.local import LocalStorage
from distill_platform.storage.s3 import S3Storage

__all__ = [
    "ABANDONED_S",
    "ATTEMPTS",
    "LocalStorage",
    "S3Storage",
    "Storage",
    "Stored",
    "UnfinishedUpload",
    "is_remote",
    "open_file",
    "open_storage",
]


def open_storage(uri: str) -> Storage:
    """The storage behind a local path, a `file://` URI or `s3://bucket/prefix`. Nothing is read or made yet.

    Raises InputError for any other scheme.
    """
    parts = urlsplit(uri)
    if parts.scheme == "s3":
        if not parts.netloc:
            raise InputError(f"{uri} names no bucket; wanted s3://bucket/prefix")
        return S3Storage(parts.netloc, parts.path.strip("/"))
    if parts.scheme == "file":
        return LocalStorage(Path(parts.path))
    if len(parts.scheme) > 1:  # one letter is a Windows drive
        raise InputError(f"a place has the scheme {parts.scheme!r}; known are a local path, file:// and s3://")
    return LocalStorage(Path(uri).expanduser())


def is_remote(uri: str) -> bool:
    """Whether other machines can reach what is stored under `uri`."""
    return urlsplit(uri).scheme == "s3"


def open_file(uri: str) -> tuple[Storage, str]:
    """A file's URI as the storage that holds it and its name there."""
    folder, _, name = uri.rpartition("/")
    if not name:
        raise InputError(f"{uri} names a folder; wanted a file")
    return open_storage(folder or ("/" if uri.startswith("/") else ".")), name
