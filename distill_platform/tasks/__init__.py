"""What a workload is: named outputs, target, task loss, metrics. One file per task, one line here."""

from distill_platform.tasks.classification import classification
from distill_platform.tasks.language_modelling import language_modelling
from distill_platform.tasks.task import UNLABELLED, Task, rows_per_pass

TASKS: dict[str, Task] = {
    "classification": classification,
    "language_modelling": language_modelling,
}

__all__ = ["TASKS", "UNLABELLED", "Task", "rows_per_pass"]
