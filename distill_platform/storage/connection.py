"""Requests to S3, each one retried by itself until an answer arrives whole, and its last fault in plain terms.

boto3's own retries are off. They stop after three tries, share a quota that a dozen bursts of 503 use up, and do not
cover the body of an answer; on top of them retries of ours would multiply the wait for a host that hangs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import tenacity

from distill_platform.errors import InputError, NotFound, StorageError

ATTEMPTS = 12
"""Tries of one request: bursts of eight to twelve 503 do happen."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 5.0
"""Upper bounds of the random wait after the first fault, doubled after each next one, and of any wait."""
CONNECT_TIMEOUT_S = 10
TIMEOUT_S = 20.0
"""How long a connection may stay silent before the request is tried again; $DISTILL_S3_TIMEOUT_S sets another."""
CONNECTIONS = 32

T = TypeVar("T")

_PASSING_STATUS = (409, 429)
_PASSING_CODES = (
    *("RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch"),  # damaged or cut short on its way
    *("InternalError", "SlowDown", "ServiceUnavailable"),  # may come inside an answer of status 200
)


class Connection:
    """One boto3 client, shared by threads and by all storages that descend from one `open_storage`.

    Endpoint, region and credentials come from the environment, as boto3 reads them. A copy in another process makes
    a client of its own.
    """

    _lock = threading.Lock()
    """Of the class: boto3's default session must not make two clients at once."""

    def __init__(self) -> None:
        self._client: Any = None

    def __reduce__(self) -> tuple[type[Connection], tuple[()]]:
        return Connection, ()

    @property
    def client(self) -> Any:
        """The client, made on first use."""
        with Connection._lock:
            if self._client is None:
                import boto3
                from botocore.config import Config

                config = Config(
                    retries={"total_max_attempts": 1},
                    connect_timeout=CONNECT_TIMEOUT_S,
                    read_timeout=_timeout_s(),
                    max_pool_connections=CONNECTIONS,
                )
                self._client = boto3.client("s3", config=config)
            return self._client


@dataclass(frozen=True)
class S3Object:
    """One object's place, and the requests about it. `where` names it in messages."""

    connection: Connection
    bucket: str
    key: str
    where: str

    def request(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """One request without a body to read, retried. `operation` is the method of the boto3 client."""
        return self.retried(lambda: self.once(operation, **arguments))

    def once(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """One request, as boto3 answers it: for use in `retried`."""
        return once(self.connection, operation, Bucket=self.bucket, Key=self.key, **arguments)

    def retried(self, call: Callable[[], T]) -> T:
        """The result of `call`, tried again while its fault may pass. Raises NotFound and StorageError."""
        return retried(call, self.where, self.bucket)


_NEEDED = {
    "head_object": ("ContentLength", "ETag"),
    "get_object": ("ContentLength", "ETag"),
    "put_object": ("ETag",),
    "upload_part": ("ETag",),
    "create_multipart_upload": ("UploadId",),
    "complete_multipart_upload": ("ETag",),
    "list_objects_v2": ("IsTruncated",),
    "list_multipart_uploads": ("IsTruncated",),
}


class CutShort(Exception):
    """An answer that ended within its headers. Python's HTTP client takes such an answer for a whole one."""


def once(connection: Connection, operation: str, **arguments: Any) -> dict[str, Any]:
    """One request, not retried. Raises CutShort for an answer without what every answer to it has."""
    try:
        answer = dict(getattr(connection.client, operation)(**arguments))
    except ValueError as error:  # half a number or half a date
        raise CutShort(f"the answer to {operation} cannot be read: {error}") from error
    if missing := [name for name in _NEEDED.get(operation, ()) if name not in answer]:
        raise CutShort(f"the answer to {operation} has no {missing[0]}")
    etag = str(answer.get("ETag", "whole"))
    if etag in ("", '"') or etag.startswith('"') != etag.endswith('"'):
        raise CutShort(f"the answer to {operation} has half an ETag: {etag}")
    return answer


def retried(call: Callable[[], T], where: str, bucket: str) -> T:
    """The result of `call`, tried ATTEMPTS times with jittered waits while its fault may pass.

    Raises NotFound for an object that is not there, StorageError for all else.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    try:
        return while_it_may_pass(_may_pass)(call)
    except ClientError as error:
        if status_of(error) == 404 and code_of(error) != "NoSuchBucket":
            raise NotFound(f"{where}: nothing is stored there") from error
        raise StorageError(f"{where}: {_explain(error, bucket)}") from error
    except NoCredentialsError as error:
        raise StorageError(
            f"{where}: no AWS credentials found; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from error
    except (CutShort, BotoCoreError, ResponseParserError, HTTPError, ConnectionError, TimeoutError) as error:
        raise StorageError(f"{where}: {error} (after {ATTEMPTS} tries)") from error


def while_it_may_pass(may_pass: Callable[[BaseException], bool]) -> tenacity.Retrying:
    """Calls what it is given ATTEMPTS times, with jittered waits, while `may_pass` holds for the fault."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(may_pass),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
        reraise=True,
    )


def status_of(error: Any) -> int:
    """The HTTP status of a ClientError."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: Any) -> str:
    """The S3 error code of a ClientError."""
    return str(error.response["Error"].get("Code", "unknown"))


def _may_pass(error: BaseException) -> bool:
    """Faults that a later try may not meet: a conflict, too many requests, a server's own fault, and a connection,
    body or checksum that broke on the way. Disk errors are not among them."""
    from botocore.exceptions import ClientError, FlexibleChecksumError, HTTPClientError, IncompleteReadError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    if isinstance(error, ClientError):
        status, code = status_of(error), code_of(error)
        is_cut_short = code.isdigit() and error.operation_name != "HeadObject"  # S3 says why, but to a HEAD
        return status in _PASSING_STATUS or status >= 500 or code in _PASSING_CODES or is_cut_short
    broken = (CutShort, HTTPClientError, IncompleteReadError, FlexibleChecksumError, ResponseParserError, HTTPError)
    return isinstance(error, (*broken, ConnectionError, TimeoutError))


def _timeout_s() -> float:
    given = os.environ.get("DISTILL_S3_TIMEOUT_S", str(TIMEOUT_S))
    try:
        timeout_s = float(given)
    except ValueError:
        timeout_s = 0.0
    if not 0 < timeout_s < float("inf"):
        raise InputError(f"DISTILL_S3_TIMEOUT_S is {given!r}; wanted a number of seconds above 0")
    return timeout_s


def _explain(error: Any, bucket: str) -> str:
    code = code_of(error)
    advice = {
        "NoSuchBucket": f"the bucket {bucket!r} does not exist; make it, or correct the workspace",
        "AccessDenied": "access denied; these credentials may not do this here",
        "403": "access denied; these credentials may not do this here",
        "InvalidAccessKeyId": "the access key is not known at this endpoint",
        "SignatureDoesNotMatch": "the secret key does not fit the access key",
    }
    return advice.get(code) or f"{code}: {error.response['Error'].get('Message', error)}"
