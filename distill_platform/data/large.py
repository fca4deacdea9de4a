"""The pieces of a large source, read by Ray Data's workers. The caller has connected to Ray."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from distill_platform.data.rows import Part


def rows_on_ray(part: Part) -> Iterator[pa.Table]:
    """The rows of all pieces. Ray Data holds workers back while rows wait here, so memory stays bounded."""
    import ray.data

    pieces = part.source.pieces

    def read(batch: dict[str, Any]) -> Iterator[pa.Table]:
        for number in batch["item"]:
            yield from part.rows(pieces[number])

    dataset = ray.data.from_items(list(range(len(pieces))), override_num_blocks=len(pieces)).map_batches(
        read, batch_size=1, zero_copy_batch=True
    )
    dataset.context.enable_progress_bars = False
    dataset.context.execution_options.preserve_order = True  # so that messages name the same rows each time
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
