"""What a student is trained on: a weighted sum of the task loss and distillation losses.

losses.py     pure functions over tensors
catalogue.py  the literal dict LOSSES: what each loss needs, accepts and may be set to
objective.py  the weighted combination, term by term
"""

from distill_platform.objective.catalogue import LOSSES, Loss
from distill_platform.objective.objective import Objective, Term, without_teacher

__all__ = ["LOSSES", "Loss", "Objective", "Term", "without_teacher"]
