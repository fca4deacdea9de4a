"""A teacher's outputs at rest.

targets.py    what a loss is handed: a decoded target that knows what it holds
encoding.py   a codec's settings
bits.py       integers in as few bits as they need
codecs/       outputs <-> fixed-width columns <-> target: the literal dict CODECS
choice.py     which encoding carries an objective, and which of those takes the fewest bytes
manifest.py   what a cache holds, and whom it belongs to
writer.py     one shard: rows keyed by (example, view)
reader.py     targets for (example, view): memory-mapped, or through a pool
epochs.py     a layout for caches larger than memory: an epoch's rows side by side
dataset.py    decoded rows as a ray.data.Dataset
verify.py     every stored byte read again
"""

from distill_platform.cache.choice import Demand, choose_encoding
from distill_platform.cache.codecs import CODECS, Codec
from distill_platform.cache.dataset import read_dataset
from distill_platform.cache.encoding import Encoding
from distill_platform.cache.manifest import Manifest, open_manifest
from distill_platform.cache.reader import CachedTargets, open_targets
from distill_platform.cache.targets import DenseTarget, SampledTarget, Target, TopKTarget
from distill_platform.cache.verify import verify_cache

__all__ = [
    "CODECS",
    "CachedTargets",
    "Codec",
    "Demand",
    "DenseTarget",
    "Encoding",
    "Manifest",
    "SampledTarget",
    "Target",
    "TopKTarget",
    "choose_encoding",
    "open_manifest",
    "open_targets",
    "read_dataset",
    "verify_cache",
]
