"""A teacher's outputs <-> fixed-width columns. Each codec is a pure encode/decode pair behind the dict CODECS.

codec.py    what a codec is
dense.py    dense, planes, int4: every logit
ternary.py  the largest logits, and one of three levels for each other
topk.py     the largest logits, and what is left of the others
sampled.py  an unbiased estimate of the distribution, for many classes
head.py     the last hidden state
"""

from distill_platform.cache.codecs.codec import Codec, Columns
from distill_platform.cache.codecs.dense import DENSE, INT4, PLANES
from distill_platform.cache.codecs.head import HEAD
from distill_platform.cache.codecs.sampled import SAMPLED
from distill_platform.cache.codecs.ternary import TERNARY
from distill_platform.cache.codecs.topk import TOPK

__all__ = ["CODECS", "KEY_BYTES", "Codec", "Columns"]

CODECS: dict[str, Codec] = {
    "dense": DENSE,
    "planes": PLANES,
    "int4": INT4,
    "ternary": TERNARY,
    "topk": TOPK,
    "sampled": SAMPLED,
    "head": HEAD,
}

KEY_BYTES = 16 + 2
"""Bytes of a row beside its units: the example's key and the view's number."""
