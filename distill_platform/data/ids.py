"""What an example is called, whatever file or row it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill_platform.data.padding import lengths_of

KEY_BYTES = 16


def content_ids(inputs: NDArray[Any], padding: int | None = None) -> list[str]:
    """sha256 (hex) of each input's values, for [N, *shape]; equal inputs have equal ids. -0.0 counts as 0.0.

    What stands in padding does not count: a longer text elsewhere renames no other.
    """
    values = inputs + np.zeros((), inputs.dtype) if inputs.dtype.kind == "f" else inputs
    if padding is not None:
        ends = lengths_of(inputs, padding).tolist()
        return [hashlib.sha256(row[:end].tobytes()).hexdigest() for row, end in zip(values, ends, strict=True)]
    return [hashlib.sha256(row.tobytes()).hexdigest() for row in values]


def repeated_id(content_id: str, ordinal: int) -> str:
    """The id of a further example of the same content (ordinal 1, 2, …)."""
    return f"{content_id}-{ordinal}"


def keys_of(ids: Sequence[str]) -> NDArray[np.uint8]:
    """[N, KEY_BYTES]: the first bytes of sha256(id). Joins, splits and views go by it."""
    digests = b"".join(hashlib.sha256(one.encode()).digest()[:KEY_BYTES] for one in ids)
    return np.frombuffer(digests, np.uint8).reshape(-1, KEY_BYTES)
