"""Training: one optimiser step, the loop around it, checkpoints. With a teacher's outputs or without.

optim.py       optimisers and schedules: the literal dicts OPTIMIZERS and SCHEDULES
teachers.py    who answers for a teacher: a cache, or the teacher itself
start.py       what a student's training begins with: random weights, a saved model's, its teacher's
worst_group.py how much each subgroup counts, from batch to batch
settings.py    TrainSettings
trainer.py     Trainer: steps, epochs, validation, early stopping, its state as tensors and JSON
checkpoint.py  a Trainer's state at rest: one safetensors file and a pointer written last
fit.py         a Trainer run to its end, continuing from its checkpoint
"""

from distill_platform.train.checkpoint import Checkpoints
from distill_platform.train.fit import fit
from distill_platform.train.optim import OPTIMIZERS, SCHEDULES
from distill_platform.train.settings import TrainSettings
from distill_platform.train.teachers import CachedTeacher, LiveTeacher, Teacher, open_teacher
from distill_platform.train.trainer import EpochReport, Trainer

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "CachedTeacher",
    "Checkpoints",
    "EpochReport",
    "LiveTeacher",
    "Teacher",
    "TrainSettings",
    "Trainer",
    "fit",
    "open_teacher",
]
