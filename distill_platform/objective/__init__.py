"""What a student is trained on: a weighted sum of the task loss and distillation losses.

response/     losses of outputs, as pure functions over tensors
features/     losses of layers, as modules around pure functions
schedules.py  weights and settings that change while a student trains
catalogue.py  the literal dict LOSSES: what each loss needs, accepts and may be set to
layers.py     which layers of a student meet which of a teacher
answers.py    what a teacher says of a batch, and when in training that is
objective.py  the weighted combination, term by term
"""

from distill_platform.objective.answers import Moment, TeacherAnswer
from distill_platform.objective.catalogue import LOSSES, VALIDATION, kl_to_teacher
from distill_platform.objective.loss import Loss
from distill_platform.objective.objective import Objective, Term, check_layers, without_teacher

__all__ = [
    "LOSSES",
    "VALIDATION",
    "Loss",
    "Moment",
    "Objective",
    "TeacherAnswer",
    "Term",
    "check_layers",
    "kl_to_teacher",
    "without_teacher",
]
