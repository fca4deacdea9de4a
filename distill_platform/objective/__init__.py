"""What a student is trained on: a weighted sum of the task loss and distillation losses.

losses.py     pure functions over tensors
catalogue.py  the literal dict LOSSES: what each loss needs, accepts and may be set to
objective.py  the weighted combination, term by term
"""

from distill_platform.objective.catalogue import LOSSES, VALIDATION, Loss, kl_to_teacher
from distill_platform.objective.objective import Objective, Term, without_teacher

__all__ = ["LOSSES", "VALIDATION", "Loss", "Objective", "Term", "kl_to_teacher", "without_teacher"]
