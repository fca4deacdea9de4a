"""The teacher: get one, and let it answer once for everything.

train.py   train one from scratch, or take given weights and check that they fit the data
fill.py    the pass that fills the cache
"""

from distill_platform.teacher.fill import fill_cache
from distill_platform.teacher.train import load_teacher, train_teacher, validation_counts

__all__ = ["fill_cache", "load_teacher", "train_teacher", "validation_counts"]
