"""What a cache holds and whom it belongs to; the payload file that is written last."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from distill_platform.artifact import Artifact
from distill_platform.errors import CacheMismatch, FormatError

MANIFEST_FILE = "manifest.json"
MANIFEST_FORMAT = 1


@dataclass(frozen=True)
class CachedSplit:
    """Rows of one split: example-major, so row `example * num_views + view`."""

    num_examples: int
    num_views: int
    shards: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """Belongs to one teacher and one data artifact, by digest."""

    teacher: str
    data: str
    codec: str
    dtype: str
    num_classes: int
    splits: dict[str, CachedSplit]

    def to_json(self) -> dict[str, Any]:
        return {"format": MANIFEST_FORMAT, **asdict(self)}


def open_manifest(cache: Artifact) -> Manifest:
    """The manifest of a cache artifact. Raises FormatError for another version."""
    stored = cache.read_json(MANIFEST_FILE)
    if stored.pop("format", None) != MANIFEST_FORMAT:
        raise FormatError(
            f"{cache.uri}/{MANIFEST_FILE}: this release reads format {MANIFEST_FORMAT}; build the cache again"
        )
    splits = {
        name: CachedSplit(split["num_examples"], split["num_views"], tuple(split["shards"]))
        for name, split in stored.pop("splits").items()
    }
    return Manifest(**stored, splits=splits)


def require(cache: Artifact, *, data: str, teacher: str | None = None) -> Manifest:
    """The manifest, if the cache was built from this data (and this teacher). Raises CacheMismatch otherwise."""
    manifest = open_manifest(cache)
    for what, saved, wanted in (("data", manifest.data, data), ("teacher", manifest.teacher, teacher)):
        if wanted is not None and saved != wanted:
            raise CacheMismatch(
                f"{cache.uri} was built with {what} {saved[:12]}, this run has {wanted[:12]}; "
                "run the cache step again, or give the cache that belongs to it"
            )
    return manifest
