"""How many bytes are hashed while something is done: to show that what was verified once is not verified again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from dense import Cached
from timing import empty_scratch
from torch import Tensor

from distill_platform.cache import open_manifest, open_targets


def bytes_hashed(work: Callable[[], object]) -> int:
    """Bytes that go through hashlib's sha256 and file_digest in this process during `work`."""
    total = 0
    sha256, file_digest = hashlib.sha256, hashlib.file_digest

    class Counted:
        def __init__(self, data: Any = b"", **options: Any) -> None:
            nonlocal total
            total += len(data)
            self._hash = sha256(data, **options)

        def update(self, data: Any) -> None:
            nonlocal total
            total += len(data)
            self._hash.update(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._hash, name)

    def counted_file(file: Any, digest: Any, **options: Any) -> Any:
        nonlocal total
        total += os.fstat(file.fileno()).st_size
        return file_digest(file, digest, **options)

    with patch("hashlib.sha256", Counted), patch("hashlib.file_digest", counted_file):
        work()
    return total


def measure_hashing(cached: Cached, batches: list[tuple[Tensor, Tensor]]) -> dict[str, int]:
    """Bytes hashed by opening on a new machine, by opening again, and by a warm pass over `batches`."""

    def open_once() -> None:
        open_targets(cached.cache, cached.data, "train", cached.examples)

    with empty_scratch():
        new_machine = bytes_hashed(open_once)
    return {
        "bytes_stored": cached.cache.size_bytes(*open_manifest(cached.cache).splits["train"].shards),
        "open on a new machine": new_machine,
        "open again": bytes_hashed(open_once),
        "warm pass": bytes_hashed(lambda: [cached.targets(index, view) for index, view in batches]),
    }
