"""What a workload is: named outputs, target, task loss, metrics. One file per task, one line here."""

from distill_platform.tasks.classification import classification
from distill_platform.tasks.task import Task

TASKS: dict[str, Task] = {
    "classification": classification,
}

__all__ = ["TASKS", "Task"]
