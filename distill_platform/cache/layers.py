"""What a teacher's inner layers said, beside its logits."""

from __future__ import annotations

from torch import Tensor

from distill_platform.artifact import Artifact
from distill_platform.cache.manifest import require
from distill_platform.cache.writer import LAYER
from distill_platform.data.columns import map_columns


def open_layers(cache: Artifact, data: Artifact, split: str) -> dict[str, Tensor]:
    """Name of each kept layer -> its values `[rows, …]` fp16, mapped; row `example * num_views + view`.

    Shapes of a row are in the manifest. Raises CacheMismatch if the cache was built from other data.
    """
    manifest = require(cache, data=data.digest)
    cached = manifest.splits[split]
    columns = map_columns(cache, cached.shards, [f"{LAYER}{name}" for name in manifest.layers])
    return {name.removeprefix(LAYER): values for name, values in columns.items()}
