"""Canonical JSON -> sha256. What cannot be hashed the same way on every machine is refused."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Value as JSON bytes with sorted keys and no spaces; equal values give equal bytes.

    Takes None, bool, int, finite float, str, list, tuple and dict with str keys. An integral float is kept
    apart from the int (1.0 is not 1), as JSON keeps them apart.

    Raises TypeError for anything else (a set has no order, an object has no stable form) and ValueError for
    NaN and infinities.
    """
    _refuse_unstable(value, "$")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def fingerprint(value: Any) -> str:
    """sha256 (64 hex digits) of the canonical JSON of `value`."""
    return sha256_bytes(canonical_json(value))


def sha256_bytes(data: bytes) -> str:
    """sha256 of `data` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes as 64 hex digits, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_unstable(value: Any, where: str) -> None:
    if value is None or isinstance(value, bool | int | str):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}: only finite numbers can be fingerprinted")
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            _refuse_unstable(item, f"{where}[{position}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r} of type {type(key).__name__}: only str keys are stable")
            _refuse_unstable(item, f"{where}.{key}")
    else:
        raise TypeError(
            f"{where} is a {type(value).__name__}, which has no stable form; "
            "give numbers, strings, lists and dicts with string keys"
        )
