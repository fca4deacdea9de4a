"""What a cache holds and whom it belongs to; the payload file that is written last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from distill_platform.artifact import Artifact
from distill_platform.cache.encoding import Encoding
from distill_platform.data.views import Views
from distill_platform.errors import CacheMismatch, FormatError

MANIFEST_FILE = "manifest.json"
CONSTANTS_FILE = "constants.safetensors"
"""What a codec needs once for all rows: the teacher's output layer."""
MANIFEST_FORMAT = 2


@dataclass(frozen=True)
class CachedSplit:
    """Rows of one split: example-major, so row `example * num_views + view`."""

    num_examples: int
    num_views: int
    shards: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """Belongs to one teacher and one data artifact, by digest.

    layers:    name of a kept layer -> shape of one row's values; column `layer.<name>`, fp16.
    modes:     name of a kept layer -> "pooled" or "whole".
    mixes:     whether rows have a partner: columns `partner` and `weight`.
    views:     what the views are made by; None in caches of release 0.1, which did not keep it.
    precision: number format of the teacher's arithmetic.
    output_layer: sha256 of the constants, the teacher's output layer, where the codec needs it; else empty.
    parity:    what was found when a sample was computed again before the cache was sealed.
    """

    teacher: str
    data: str
    encoding: Encoding
    splits: dict[str, CachedSplit]
    layers: dict[str, tuple[int, ...]] = field(default_factory=dict)
    modes: dict[str, str] = field(default_factory=dict)
    mixes: bool = False
    views: Views | None = None
    precision: str = "float32"
    output_layer: str = ""
    parity: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {"format": MANIFEST_FORMAT, **asdict(self), "views": _views_json(self.views)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Manifest:
        given = {name: value for name, value in stored.items() if name != "format"}
        splits = {
            name: CachedSplit(split["num_examples"], split["num_views"], tuple(split["shards"]))
            for name, split in given.pop("splits").items()
        }
        layers = {name: tuple(shape) for name, shape in given.pop("layers").items()}
        views = _views_of(given.pop("views", None))
        return cls(
            **{**given, "encoding": Encoding(**given["encoding"]), "splits": splits, "layers": layers, "views": views}
        )


def open_manifest(cache: Artifact) -> Manifest:
    """The manifest of a cache artifact. Raises FormatError for another version."""
    stored = cache.read_json(MANIFEST_FILE)
    if stored.get("format") == 1:
        stored = _from_format_1(stored)
    if stored.get("format") != MANIFEST_FORMAT:
        raise FormatError(
            f"{cache.uri}/{MANIFEST_FILE} has format {stored.get('format')!r}, this release reads 1 to "
            f"{MANIFEST_FORMAT}; use the release that wrote it"
        )
    return Manifest.from_json(stored)


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


def _views_json(views: Views | None) -> dict[str, Any] | None:
    if views is None:
        return None
    transforms = [{"name": name, **dict(arguments)} for name, arguments in views.transforms]
    return {"num": views.num, "seed": views.seed, "transforms": transforms}


def _views_of(stored: Mapping[str, Any] | None) -> Views | None:
    if stored is None:
        return None
    transforms = (
        (given["name"], tuple((name, value) for name, value in sorted(given.items()) if name != "name"))
        for given in stored["transforms"]
    )
    return Views(stored["num"], stored["seed"], tuple(transforms))


def _from_format_1(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Release 0.1 knew dense logits alone."""
    encoding = {name: stored[name] for name in ("codec", "num_classes", "dtype")}
    kept = {name: stored[name] for name in ("teacher", "data", "splits")}
    return {"format": MANIFEST_FORMAT, **kept, "encoding": encoding, "layers": {}}
