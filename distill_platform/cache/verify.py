"""Read a whole cache again from where it is stored, against what it was committed with."""

from __future__ import annotations

from distill_platform.artifact import Artifact
from distill_platform.cache.manifest import open_manifest
from distill_platform.data.columns import count_rows


def verify_cache(cache: Artifact) -> int:
    """Read every file of a cache from where it is stored, against its hash; gives the number of rows.

    Raises Corrupt naming the first file that changed.
    """
    open_manifest(cache)
    shards = cache.files_under("shards")
    for name in set(cache.files) - set(shards):
        cache.read(name)
    return sum(count_rows(cache.read(shard)) for shard in shards)
