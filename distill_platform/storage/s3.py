"""A prefix of an S3 bucket as a storage: `If-None-Match: *` for create, large files in parts, every request retried."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any

from distill_platform.errors import NotFound
from distill_platform.storage import transfer
from distill_platform.storage.base import ABANDONED_S, Stored, UnfinishedUpload, checked_name
from distill_platform.storage.connection import Connection, S3Object, once, retried
from distill_platform.storage.local import local_errors, temporary_beside


class S3Storage:
    """A prefix of a bucket. Endpoint, region and credentials come from the environment, as boto3 reads them."""

    def __init__(self, bucket: str, prefix: str, connection: Connection | None = None) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._connection = connection or Connection()

    @property
    def client(self) -> Any:
        """The boto3 client, made on first use."""
        return self._connection.client

    def key(self, name: str) -> str:
        """The object key of a name."""
        return f"{self.prefix}/{checked_name(name)}".lstrip("/")

    def read(self, name: str) -> bytes:
        return transfer.read(self._object(name))

    def exists(self, name: str) -> bool:
        try:
            self._object(name).request("head_object")
        except NotFound:
            return False
        return True

    def size_bytes(self, name: str) -> int:
        return transfer.size_bytes(self._object(name))

    def list(self, prefix: str = "") -> builtins.list[str]:
        return list(self.stat(prefix))

    def stat(self, prefix: str = "") -> dict[str, Stored]:
        found = {}
        for page in self._pages("list_objects_v2", prefix, ("ContinuationToken",), ("NextContinuationToken",)):
            now = _server_time(page)
            for entry in page.get("Contents", ()):
                age_s = (now - entry["LastModified"]).total_seconds()
                found[self._name(entry["Key"])] = Stored(int(entry["Size"]), max(0.0, age_s))
        return dict(sorted(found.items()))

    def write(self, name: str, data: bytes) -> None:
        transfer.put(self._object(name), data)

    def create(self, name: str, data: bytes) -> bool:
        return transfer.create(self._object(name), data) or self._holds(name, data)

    def upload(self, local_path: Path, name: str) -> None:
        with local_errors(local_path):
            transfer.upload(local_path, self._object(name))

    def download(self, name: str, local_path: Path) -> None:
        with local_errors(local_path), temporary_beside(local_path) as temporary:
            transfer.download(self._object(name), temporary)
            temporary.replace(local_path)

    def delete(self, name: str) -> None:
        self._object(name).request("delete_object")

    def child(self, prefix: str) -> S3Storage:
        return S3Storage(self.bucket, self.key(prefix), self._connection)

    def unfinished_uploads(
        self, prefix: str = "", older_than_s: float = ABANDONED_S
    ) -> builtins.list[UnfinishedUpload]:
        marks = ("KeyMarker", "UploadIdMarker"), ("NextKeyMarker", "NextUploadIdMarker")
        found = []
        for page in self._pages("list_multipart_uploads", prefix, *marks):
            now = _server_time(page)
            for entry in page.get("Uploads", ()):
                age_s = (now - entry["Initiated"]).total_seconds()
                if entry["Key"].startswith(self._folder(prefix)) and age_s > older_than_s:
                    found.append(UnfinishedUpload(self._name(entry["Key"]), entry["UploadId"], age_s))
        return sorted(found, key=lambda upload: (upload.name, upload.upload_id))

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        transfer.abort(self._object(upload.name), upload.upload_id)

    def _object(self, name: str) -> S3Object:
        return S3Object(self._connection, self.bucket, self.key(name), f"{self.uri}/{name}")

    def _folder(self, prefix: str) -> str:
        return f"{self.key(prefix)}/" if prefix else f"{self.prefix}/".lstrip("/")

    def _name(self, key: str) -> str:
        return key[len(f"{self.prefix}/") if self.prefix else 0 :]

    def _pages(
        self, operation: str, prefix: str, asked: tuple[str, ...], told: tuple[str, ...]
    ) -> Iterator[dict[str, Any]]:
        """The pages of a listing, each retried by itself; `asked` and `told` name the marks that lead to the next."""
        where, folder, marks = f"{self.uri}/{prefix or '.'}", self._folder(prefix), dict[str, str]()
        while True:
            call = partial(once, self._connection, operation, Bucket=self.bucket, Prefix=folder, **marks)
            page = retried(call, where, self.bucket)
            yield page
            if not page.get("IsTruncated"):
                return
            marks = {name: page[mark] for name, mark in zip(asked, told, strict=True) if page.get(mark)}

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.read(name) == data
        except NotFound:  # another's object, gone since
            return False


def _server_time(page: dict[str, Any]) -> datetime:
    """Now by the clock that also dated the uploads: this machine's may be wrong."""
    date = page["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)
