"""The weighted combination of a task loss and distillation losses, kept term by term."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill_platform.cache import Target
from distill_platform.data.mixing import MixedLabels
from distill_platform.models import Outputs
from distill_platform.objective.catalogue import LOSSES
from distill_platform.tasks import Task

TASK = "task"
"""The name of the task loss among the terms."""


@dataclass(frozen=True)
class Term:
    """One loss of an objective: a name of LOSSES, or TASK; its weight; its settings."""

    name: str
    weight: float
    settings: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Objective:
    """Sum over terms of weight times loss."""

    task: Task
    terms: tuple[Term, ...]

    @classmethod
    def of(cls, task: Task, terms: Mapping[str, Mapping[str, float]]) -> Objective:
        """From the spec's form: loss name -> weight and settings."""
        return cls(
            task,
            tuple(
                Term(name, given["weight"], tuple((key, value) for key, value in given.items() if key != "weight"))
                for name, given in terms.items()
            ),
        )

    @property
    def needs_teacher(self) -> bool:
        """Whether a term has to be handed the teacher's outputs."""
        return any(term.name != TASK for term in self.terms)

    def __call__(
        self, outputs: Outputs, labels: Tensor, target: Target | None, mixed: MixedLabels | None = None
    ) -> dict[str, Tensor]:
        """The weighted value of each term, scalars that carry gradients; their sum is the training loss.

        mixed: the labels of the examples' partners, where examples are mixed.
        """
        return {term.name: term.weight * self._value(term, outputs, labels, target, mixed) for term in self.terms}

    def _value(
        self, term: Term, outputs: Outputs, labels: Tensor, target: Target | None, mixed: MixedLabels | None
    ) -> Tensor:
        settings = dict(term.settings)
        if term.name == TASK and mixed is not None:
            own = self.task.loss(outputs, labels, weight=mixed.weight, **settings)
            return own + self.task.loss(outputs, mixed.partner, weight=1 - mixed.weight, **settings)
        if term.name == TASK:
            return self.task.loss(outputs, labels, **settings)
        assert target is not None, f"the term {term.name} needs the teacher's outputs"
        return LOSSES[term.name](outputs[self.task.output], target, labels, **settings)


def without_teacher(terms: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The objective of a baseline: the task loss at weight 1 with its own settings, and nothing from a teacher."""
    return {TASK: {**terms.get(TASK, {}), "weight": 1.0}}


def gradient_shares(terms: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, float]:
    """Each term's share of the summed gradient norms over the parameters, 0 to 1; the graph is kept for the step.

    A weight that does nothing is the commonest silent fault of a distillation: a term that never reaches a hundredth
    is named in the report.
    """
    norms = {}
    for name, value in terms.items():
        gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        norms[name] = float(torch.stack([g.double().norm() for g in gradients if g is not None]).norm())
    total = sum(norms.values())
    return {name: norm / total if total > 0 else 0.0 for name, norm in norms.items()}
