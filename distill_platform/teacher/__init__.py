"""The teacher: get one, and let it answer once for everything.

train.py     train one from scratch, or take given weights and check that they fit the data
answers.py   what it says of raw inputs, in the number format that it is computed in
fill.py      the pass that fills the cache: shards over workers, then the comparison, then the manifest
shards.py    one worker of it
audit.py     the teacher asked again, and held against what a cache keeps
"""

from distill_platform.teacher.answers import hidden_size
from distill_platform.teacher.audit import AuditReport, audit_cache
from distill_platform.teacher.fill import fill_cache
from distill_platform.teacher.train import load_teacher, train_teacher, validation_counts

__all__ = [
    "AuditReport",
    "audit_cache",
    "fill_cache",
    "hidden_size",
    "load_teacher",
    "train_teacher",
    "validation_counts",
]
