"""What every storage answers to."""

from __future__ import annotations

import builtins
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from distill_platform.errors import StorageError

ABANDONED_S = 24 * 3600.0
"""After how long an upload that did not end is taken for one whose process is gone."""


@dataclass(frozen=True)
class UnfinishedUpload:
    """What a killed writer left behind: an S3 multipart upload, or a local temporary file. No reader ever sees it."""

    name: str
    upload_id: str
    age_s: float


@dataclass(frozen=True)
class Stored:
    """An object as a listing shows it; the age is since its last write, by the clock of the place that keeps it."""

    size_bytes: int
    age_s: float


class Storage(Protocol):
    """A place that holds named objects. Names are relative, with `/` between their parts."""

    uri: str

    def read(self, name: str) -> bytes:
        """All bytes of an object. Raises NotFound."""

    def exists(self, name: str) -> bool:
        """Whether an object is there."""

    def size_bytes(self, name: str) -> int:
        """An object's size. Raises NotFound."""

    def list(self, prefix: str = "") -> builtins.list[str]:
        """Names of all objects under the folder `prefix`, sorted."""

    def stat(self, prefix: str = "") -> dict[str, Stored]:
        """Size and age of all objects under the folder `prefix`, by name."""

    def write(self, name: str, data: bytes) -> None:
        """Put an object, in one piece, over whatever is there."""

    def create(self, name: str, data: bytes) -> bool:
        """Put an object only if none is there. True if these bytes are what is stored now.

        A PUT whose answer was lost is retried, and the retry finds its own object: so a refusal is decided by reading
        back. Callers that must tell their own bytes from another's put a nonce in them.
        """

    def upload(self, local_path: Path, name: str) -> None:
        """Put a file, in one piece, over whatever is there."""

    def download(self, name: str, local_path: Path) -> None:
        """Get an object into a file; `local_path` appears complete or not at all. Raises NotFound."""

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""

    def child(self, prefix: str) -> Storage:
        """The same place, with every name under `prefix`."""

    def unfinished_uploads(
        self, prefix: str = "", older_than_s: float = ABANDONED_S
    ) -> builtins.list[UnfinishedUpload]:
        """Uploads under the folder `prefix` that were begun longer ago than that and did not end, sorted by name.

        A living writer's upload looks the same as a dead one's: the age alone tells them apart.
        """

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Remove what an unfinished upload left; one that is gone is no error."""


def checked_name(name: str) -> str:
    """A name as it is kept. Raises StorageError for one that would leave the storage."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise StorageError(f"{name!r} is no name inside a storage: wanted a relative one without '..'")
    return name.rstrip("/")
