"""One URI -> one filesystem. A local folder and `s3://bucket/prefix` answer to the same few calls.

Every write is whole: a reader sees the old object, the new one, or none, and never a part. `create` is the one
primitive for agreement between processes: of many callers, one is told True.

    LocalStorage    temporary file, fsync, then hard link (create) or rename (write)
    S3Storage       one PUT; `If-None-Match: *` for create; whole calls retried
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import tenacity

from distill_platform.errors import InputError, NotFound, StorageError

ATTEMPTS = 12
"""Tries of one whole call: bursts of eight to twelve 503 do happen, and boto3 alone gives up after three."""


class Storage(Protocol):
    """A place that holds named objects. Names are relative, with `/` between their parts."""

    uri: str

    def read(self, name: str) -> bytes:
        """All bytes of an object. Raises NotFound."""

    def exists(self, name: str) -> bool:
        """Whether an object is there."""

    def list(self, prefix: str = "") -> list[str]:
        """Names of all objects under the folder `prefix`, sorted."""

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


class LocalStorage:
    """A folder. Folders are made on the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.uri = str(self.root)

    def path(self, name: str) -> Path:
        """Where an object is kept."""
        return self.root / _checked(name)

    def read(self, name: str) -> bytes:
        with _local_errors(self.path(name)):
            return self.path(name).read_bytes()

    def exists(self, name: str) -> bool:
        return self.path(name).is_file()

    def list(self, prefix: str = "") -> list[str]:
        top = self.root / _checked(prefix) if prefix else self.root
        files = (Path(folder) / file for folder, _, names in os.walk(top) for file in names)
        return sorted(path.relative_to(self.root).as_posix() for path in files if not path.name.startswith(".tmp-"))

    def write(self, name: str, data: bytes) -> None:
        with _local_errors(self.path(name)), self._temporary(name) as temporary:
            _write_durably(temporary, data)
            temporary.replace(self.path(name))

    def create(self, name: str, data: bytes) -> bool:
        with _local_errors(self.path(name)), self._temporary(name) as temporary:
            _write_durably(temporary, data)
            try:
                os.link(temporary, self.path(name))
            except FileExistsError:
                return self._holds(name, data)
        return True

    def upload(self, local_path: Path, name: str) -> None:
        with _local_errors(self.path(name)), self._temporary(name) as temporary:
            shutil.copyfile(local_path, temporary)
            _sync(temporary)
            temporary.replace(self.path(name))

    def download(self, name: str, local_path: Path) -> None:
        with _local_errors(self.path(name)):
            local_path.parent.mkdir(parents=True, exist_ok=True)
            temporary = local_path.with_name(f".tmp-{uuid.uuid4().hex}")
            shutil.copyfile(self.path(name), temporary)
            temporary.replace(local_path)

    def delete(self, name: str) -> None:
        with _local_errors(self.path(name)):
            self.path(name).unlink(missing_ok=True)

    def child(self, prefix: str) -> LocalStorage:
        return LocalStorage(self.root / _checked(prefix))

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.read(name) == data
        except NotFound:  # another's object, gone since
            return False

    @contextmanager
    def _temporary(self, name: str) -> Iterator[Path]:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


class S3Storage:
    """A prefix of a bucket. Endpoint, region and credentials come from the environment, as boto3 reads them."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._client: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}  # a client holds sockets; each process makes its own

    @property
    def client(self) -> Any:
        """The boto3 client, made on first use."""
        if self._client is None:
            import boto3
            from botocore.config import Config

            config = Config(retries={"mode": "standard", "max_attempts": ATTEMPTS}, connect_timeout=10, read_timeout=60)
            self._client = boto3.client("s3", config=config)
        return self._client

    def key(self, name: str) -> str:
        """The object key of a name."""
        return f"{self.prefix}/{_checked(name)}".lstrip("/")

    def read(self, name: str) -> bytes:
        def get() -> bytes:
            return cast(bytes, self.client.get_object(Bucket=self.bucket, Key=self.key(name))["Body"].read())

        return cast(bytes, self._call(name, get))

    def exists(self, name: str) -> bool:
        try:
            self._call(name, lambda: self.client.head_object(Bucket=self.bucket, Key=self.key(name)))
        except NotFound:
            return False
        return True

    def list(self, prefix: str = "") -> list[str]:
        folder = f"{self.key(prefix)}/" if prefix else f"{self.prefix}/".lstrip("/")
        skip = len(f"{self.prefix}/") if self.prefix else 0

        def pages() -> list[str]:
            paginator = self.client.get_paginator("list_objects_v2")
            found = paginator.paginate(Bucket=self.bucket, Prefix=folder)
            return sorted(entry["Key"][skip:] for page in found for entry in page.get("Contents", ()))

        return cast("list[str]", self._call(prefix or ".", pages))

    def write(self, name: str, data: bytes) -> None:
        self._call(name, lambda: self.client.put_object(Bucket=self.bucket, Key=self.key(name), Body=data))

    def create(self, name: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        def put() -> bool:
            try:
                self.client.put_object(Bucket=self.bucket, Key=self.key(name), Body=data, IfNoneMatch="*")
            except ClientError as error:
                if _status(error) == 412:
                    return False
                raise
            return True

        return bool(self._call(name, put)) or self._holds(name, data)

    def upload(self, local_path: Path, name: str) -> None:
        self._call(name, lambda: self.client.upload_file(str(local_path), self.bucket, self.key(name)))

    def download(self, name: str, local_path: Path) -> None:
        local_path.parent.mkdir(parents=True, exist_ok=True)
        temporary = local_path.with_name(f".tmp-{uuid.uuid4().hex}")
        try:
            self._call(name, lambda: self.client.download_file(self.bucket, self.key(name), str(temporary)))
            temporary.replace(local_path)
        finally:
            temporary.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        self._call(name, lambda: self.client.delete_object(Bucket=self.bucket, Key=self.key(name)))

    def child(self, prefix: str) -> S3Storage:
        return S3Storage(self.bucket, self.key(prefix))

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.read(name) == data
        except NotFound:  # another's object, gone since
            return False

    def _call(self, name: str, call: Any) -> Any:
        """One whole call, retried while the fault may pass, its final fault said in the platform's terms."""
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        where = f"{self.uri}/{name}"
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=5),
            reraise=True,
        )
        try:
            return retrying(call)
        except ClientError as error:
            if _status(error) == 404 and error.response["Error"]["Code"] != "NoSuchBucket":
                raise NotFound(f"{where}: nothing is stored there") from error
            raise StorageError(f"{where}: {_explain(error, self.bucket)}") from error
        except NoCredentialsError as error:
            raise StorageError(
                f"{where}: no AWS credentials found; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        except (BotoCoreError, S3UploadFailedError, OSError) as error:
            raise StorageError(f"{where}: {error} (after {ATTEMPTS} tries)") from error


def _checked(name: str) -> str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise StorageError(f"{name!r} is no name inside a storage: wanted a relative one without '..'")
    return name.rstrip("/")


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _local_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{path}: nothing is stored there") from error
    except OSError as error:
        advice = {errno.ENOSPC: "; free some space", errno.EACCES: "; check who owns the folder"}
        raise StorageError(f"{path}: {error.strerror or error}{advice.get(error.errno or 0, '')}") from error


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _may_pass(error: BaseException) -> bool:
    """Faults that a later try may not meet: 409 conflict, 429, 5xx, and a connection or body that broke off."""
    from botocore.exceptions import (
        ClientError,
        HTTPClientError,
        IncompleteReadError,
        ResponseStreamingError,
    )

    if isinstance(error, ClientError):
        return _status(error) in (409, 429) or _status(error) >= 500
    return isinstance(error, HTTPClientError | IncompleteReadError | ResponseStreamingError | ConnectionError)


def _explain(error: Any, bucket: str) -> str:
    code = error.response["Error"].get("Code", "unknown")
    advice = {
        "NoSuchBucket": f"the bucket {bucket!r} does not exist; make it, or correct the workspace",
        "AccessDenied": "access denied; these credentials may not do this here",
        "403": "access denied; these credentials may not do this here",
        "InvalidAccessKeyId": "the access key is not known at this endpoint",
        "SignatureDoesNotMatch": "the secret key does not fit the access key",
    }
    return advice.get(code) or f"{code}: {error.response['Error'].get('Message', error)}"
