"""A teacher's outputs at rest.

targets.py    what a loss is handed: a decoded target that knows what it holds
encoding.py   a codec's settings
codecs.py     outputs <-> fixed-width columns <-> target: the literal dict CODECS
manifest.py   what a cache holds, and whom it belongs to
writer.py     one shard: rows keyed by (example, view)
reader.py     memory-mapped targets for (example, view)
verify.py     every stored byte read again
"""

from distill_platform.cache.codecs import CODECS, Codec
from distill_platform.cache.encoding import Encoding
from distill_platform.cache.manifest import Manifest, open_manifest
from distill_platform.cache.reader import CachedTargets, open_targets
from distill_platform.cache.targets import DenseTarget, Target
from distill_platform.cache.verify import verify_cache

__all__ = [
    "CODECS",
    "CachedTargets",
    "Codec",
    "DenseTarget",
    "Encoding",
    "Manifest",
    "Target",
    "open_manifest",
    "open_targets",
    "verify_cache",
]
