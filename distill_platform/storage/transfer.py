"""Whole files to and from S3, large ones in parts side by side, every part retried by itself."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import tenacity

from distill_platform.errors import NotFound, StorageError
from distill_platform.storage.connection import ATTEMPTS, S3Object, code_of, once, status_of, while_it_may_pass

PART_BYTES = 16 * 2**20
"""Objects up to this size go whole, larger ones in parts of it."""
PARTS_AT_ONCE = 4
MAX_PARTS = 10_000
"""What S3 takes in one upload."""
_CHUNK_BYTES = 2**20


class _Replaced(Exception):
    """The object is not the one that the fetch began with, or not as it was described."""


class _UploadLost(Exception):
    """The upload cannot be completed: it was aborted by a cleaner, completed by a try whose answer was lost, or an
    answer about a part came mutilated."""


_BEGIN_AGAIN = ("NoSuchUpload", "InvalidPart")


def read(source: S3Object) -> bytes:
    """All bytes of an object. Raises NotFound, StorageError."""
    from botocore.exceptions import IncompleteReadError

    def get() -> bytes:
        answer = source.once("get_object")
        data = bytes(answer["Body"].read())
        if len(data) != answer["ContentLength"]:
            raise IncompleteReadError(actual_bytes=len(data), expected_bytes=answer["ContentLength"])
        return data

    return source.retried(get)


def size_bytes(source: S3Object) -> int:
    """An object's size, from a listing: half a number in a header looks like a number, half a document like none."""

    def find() -> dict[str, Any]:
        return once(source.connection, "list_objects_v2", Bucket=source.bucket, Prefix=source.key, MaxKeys=1)

    for entry in source.retried(find).get("Contents", ()):
        if entry["Key"] == source.key:
            return int(entry["Size"])
    raise NotFound(f"{source.where}: nothing is stored there")


def download(source: S3Object, path: Path) -> None:
    """Get an object into a new file. Every part is of one and the same object: of one that is replaced while it is
    fetched, all is fetched again.

    Raises NotFound, StorageError, and OSError of the disk.
    """
    try:
        _begun_again_if(_Replaced)(_download_once, source, path)
    except _Replaced as error:
        raise StorageError(
            f"{source.where} was replaced during each of {ATTEMPTS} tries to fetch it; find out who keeps writing it"
        ) from error


def _download_once(source: S3Object, path: Path) -> None:
    found = source.request("head_object")
    size, etag = int(found["ContentLength"]), str(found["ETag"])
    with path.open("wb") as file, ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        for _ in pool.map(lambda part: _get(source, etag, part, size, file.fileno()), _parts(size, PART_BYTES)):
            pass


def _get(source: S3Object, etag: str, part: range, size: int, descriptor: int) -> None:
    """One part, written where it belongs. A whole object is asked for without a range: its checksum comes along."""
    from botocore.exceptions import ClientError, IncompleteReadError

    wanted_range = {} if len(part) == size else {"Range": f"bytes={part.start}-{part.stop - 1}"}

    def get() -> None:
        try:
            answer = source.once("get_object", IfMatch=etag, **wanted_range)
        except ClientError as error:
            if status_of(error) == 412:
                raise _Replaced from error
            raise
        with closing(answer["Body"]) as body:
            received = _receive(body, part, descriptor)
        if received != answer["ContentLength"]:
            raise IncompleteReadError(actual_bytes=received, expected_bytes=answer["ContentLength"])
        given = answer.get("ContentRange", f"bytes 0-{received - 1}/{received}")
        if answer["ETag"] != etag or given != f"bytes {part.start}-{part.stop - 1}/{size}":
            raise _Replaced  # or a gateway that ignores If-Match, or a HEAD of which half a number came

    source.retried(get)


def _receive(body: Any, part: range, descriptor: int) -> int:
    """Write a body to its part of the file, nothing beyond it; gives the number of bytes that came."""
    received = 0
    while chunk := body.read(_CHUNK_BYTES):
        offset, received = part.start + received, received + len(chunk)
        fitting = memoryview(chunk)[: max(0, part.stop - offset)]
        while fitting:
            written = os.pwrite(descriptor, fitting, offset)
            fitting, offset = fitting[written:], offset + written
    return received


def upload(path: Path, target: S3Object) -> None:
    """Put a file. The object appears when all of it has arrived; a failure leaves no parts behind.

    Raises StorageError, and OSError of the disk.
    """
    if path.stat().st_size <= PART_BYTES:
        put(target, path.read_bytes())
        return
    try:
        _begun_again_if(_UploadLost)(_upload_parts, path, target)
    except _UploadLost as error:
        raise StorageError(f"{target.where}: {ATTEMPTS} uploads in parts were lost halfway") from error


def put(target: S3Object, data: bytes) -> None:
    """Put an object over whatever is there."""
    target.request("put_object", Body=data, **checksum(target, data))


def create(target: S3Object, data: bytes) -> bool:
    """Put an object if none is there; False if one is."""
    from botocore.exceptions import ClientError

    def put_if_absent() -> bool:
        try:
            target.once("put_object", Body=data, IfNoneMatch="*", **checksum(target, data))
        except ClientError as error:
            if status_of(error) == 412:
                return False
            raise
        return True

    return target.retried(put_if_absent)


def _upload_parts(path: Path, target: S3Object) -> None:
    size = path.stat().st_size
    part_bytes = max(PART_BYTES, -(-size // MAX_PARTS))
    algorithm = {} if _by_md5(target) else {"ChecksumAlgorithm": "CRC32"}
    upload_id = target.request("create_multipart_upload", **algorithm)["UploadId"]
    try:
        with path.open("rb") as file, ThreadPoolExecutor(PARTS_AT_ONCE) as pool:

            def put_part(number: int, part: range) -> dict[str, Any]:
                data = os.pread(file.fileno(), len(part), part.start)
                answer = _of_upload(target, "upload_part", upload_id, PartNumber=number, Body=data)
                proofs: dict[str, Any] = {name: answer[name] for name in ("ETag", "ChecksumCRC32") if name in answer}
                return {"PartNumber": number, **proofs}

            parts = list(pool.map(put_part, itertools.count(1), _parts(size, part_bytes)))
        _of_upload(target, "complete_multipart_upload", upload_id, MultipartUpload={"Parts": parts})
    except BaseException:
        with suppress(StorageError):  # the fault that led here is the one to tell; `unfinished_uploads` finds the rest
            abort(target, upload_id)
        raise


def _of_upload(target: S3Object, operation: str, upload_id: str, **arguments: Any) -> dict[str, Any]:
    proof = checksum(target, arguments["Body"]) if "Body" in arguments else {}
    try:
        return target.request(operation, UploadId=upload_id, **arguments, **proof)
    except StorageError as error:
        if getattr(error.__cause__, "response", None) and code_of(error.__cause__) in _BEGIN_AGAIN:
            raise _UploadLost from error
        raise


def abort(target: S3Object, upload_id: str) -> None:
    """Remove the parts of an unfinished upload; one that is gone is no error."""
    with suppress(NotFound):
        target.request("abort_multipart_upload", UploadId=upload_id)


def _begun_again_if(fault: type[Exception]) -> tenacity.Retrying:
    return while_it_may_pass(lambda error: isinstance(error, fault))


def _parts(size: int, part_bytes: int) -> Iterator[range]:
    """The bytes of each part; one part of none for an empty object."""
    return (range(start, min(start + part_bytes, size)) for start in range(0, max(1, size), part_bytes))


def checksum(target: S3Object, data: bytes) -> dict[str, str]:
    """The arguments of a PUT by which the server notices that `data` was damaged on its way."""
    if not _by_md5(target):
        return {"ChecksumAlgorithm": "CRC32"}
    return {"ContentMD5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()}


def _by_md5(target: S3Object) -> bool:
    """Whether the environment says that the gateway knows no checksum headers: then MD5, which all know, stands in."""
    return str(target.connection.client.meta.config.request_checksum_calculation) == "when_required"
