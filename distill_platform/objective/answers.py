"""What an objective is handed about a batch, beside the student's own answer (`models.capture.Answer`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from distill_platform.cache import Target


@dataclass(frozen=True)
class TeacherAnswer:
    """What a teacher says of the very inputs that the student saw.

    target: its outputs, as far as they are known. layers: name -> values `[B, …]` of its layers, of any float type.
    """

    target: Target
    layers: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Moment:
    """When in training a batch is met, and with which examples.

    done:  share of all steps that are over, 0 to 1: what schedules go by.
    step:  of the optimiser, from 0.
    index: `[B]`, rows of the train split.
    """

    done: float = 0.0
    step: int = 0
    index: Tensor | None = None


START = Moment()
