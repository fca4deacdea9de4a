"""Training for the subgroup that a model is worst in: group distributionally robust optimisation.

Sagawa et al. 2020, arXiv:1911.08731, algorithm 1. Axes: B examples of a batch, G subgroups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distill_platform.data.schema import UNLABELLED, Schema
from distill_platform.errors import DataError
from distill_platform.models import Outputs
from distill_platform.objective import Objective
from distill_platform.tasks.task import Sums, Task

STEP_SIZE = 0.01
"""As the spec has it by default: what a sweep chooses comes as it was written, `{}` too."""
WORST_ACCURACY = "val_worst_group_accuracy"
"""Of the validation split: the accuracy in the subgroup where it is lowest."""


@dataclass
class WorstGroup:
    """How much each subgroup counts, and the rule by which that changes from batch to batch.

    log_weights: `[G]`, of weights that sum to 1; part of a training's state. Of the logarithm none is ever 0, from
                 which no subgroup would return.
    """

    log_weights: Tensor
    step_size: float
    names: tuple[str, ...]
    objective: Objective

    @classmethod
    def of(
        cls, settings: Mapping[str, Any] | None, schema: Schema, objective: Objective, device: torch.device
    ) -> WorstGroup | None:
        """Equal weights to begin with; None where it is not asked for. Raises DataError of data without subgroups."""
        if settings is None:
            return None
        names = schema.subgroup_names
        if not names:
            raise DataError("train.worst_group weighs subgroups, and the data has none; set data.subgroup")
        log_weights = torch.zeros(len(names), device=device).log_softmax(0)
        return cls(log_weights, settings.get("step_size", STEP_SIZE), names, objective)

    @property
    def weights(self) -> Tensor:
        """How much each subgroup counts, `[G]`."""
        return self.log_weights.exp()

    def weigh(self, outputs: Outputs, labels: Tensor, subgroups: Tensor | None) -> Tensor:
        """How much each example of a batch counts `[B]`, by weights that have just learned of its losses.

        The mean of weighted losses over the batch is the sum over its subgroups of their weight times their mean loss.
        Examples of no subgroup, -1, count 1, as do those of a subgroup of which the batch has no label.
        """
        assert subgroups is not None, "data that names subgroups has them"
        subgroups = subgroups.to(labels.device)
        counts = (labels != UNLABELLED).view(len(labels), -1).sum(1)
        losses, totals = subgroup_losses(self._losses(outputs, labels), counts, subgroups, len(self.names))
        self.log_weights = updated(self.log_weights, losses, self.step_size)
        return example_weights(self.weights, totals, subgroups)

    def by_name(self) -> dict[str, float]:
        """The weight of each subgroup."""
        return dict(zip(self.names, self.weights.tolist(), strict=True))

    def _losses(self, outputs: Outputs, labels: Tensor) -> Tensor:
        """The sum of the task loss over the labels of each example, `[B]`.

        A task gives the mean over the batch of losses times their example's weight: its derivative by the weights is
        each example's part of it.
        """
        detached = {name: output._replace(values=output.values.detach()) for name, output in outputs.items()}
        weight = torch.ones(len(labels), device=labels.device, requires_grad=True)
        (parts,) = torch.autograd.grad(self.objective.task_loss(detached, labels, weight), weight)
        return parts * (labels != UNLABELLED).sum()


def subgroup_losses(losses: Tensor, counts: Tensor, subgroups: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Mean loss of each subgroup `[G]`, 0 where nothing of it is labelled; and how many labels each has `[G]`.

    losses: `[B]`, sum over the labels of each example; counts: `[B]`, how many; subgroups: `[B]`, -1 for none.
    """
    known = subgroups >= 0
    of_group = torch.zeros(num, dtype=losses.dtype, device=losses.device)
    sums = of_group.index_add(0, subgroups[known], losses[known])
    totals = of_group.index_add(0, subgroups[known], counts[known].to(losses.dtype))
    return sums / totals.clamp(min=1), totals


def updated(log_weights: Tensor, losses: Tensor, step_size: float) -> Tensor:
    """Log-weights of subgroups `[G]` after mean losses `[G]`, in nats: each weight times exp(step_size * loss), then
    all so that they sum to 1.
    """
    return (log_weights + step_size * losses).log_softmax(0)


def example_weights(weights: Tensor, totals: Tensor, subgroups: Tensor) -> Tensor:
    """How much each example counts `[B]`: the weight of its subgroup over that subgroup's share of the batch's labels.

    totals: `[G]`, labels of each subgroup; subgroups: `[B]`, -1 for none.
    """
    of_group = torch.where(totals > 0, weights * totals.sum() / totals.clamp(min=1), 1)
    return torch.where(subgroups >= 0, of_group[subgroups.clamp(min=0)], 1)


def subgroup_sums(task: Task, outputs: Outputs, labels: Tensor, subgroups: Tensor) -> Sums:
    """The accuracy of a part of a split in each subgroup that it holds, as sums."""
    subgroups = subgroups.to(labels.device)
    found = {}
    for group in subgroups[subgroups >= 0].unique().tolist():
        inside = (subgroups == group).view(-1, *[1] * (labels.ndim - 1))
        found[f"{WORST_ACCURACY}/{group}"] = task.metrics(outputs, labels.where(inside, UNLABELLED))["accuracy"]
    return found


def worst_of(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures with the worst of those of subgroups in place of all of these, if there are any."""
    of_groups = [value for name, value in figures.items() if name.startswith(f"{WORST_ACCURACY}/")]
    others = {name: value for name, value in figures.items() if not name.startswith(f"{WORST_ACCURACY}/")}
    counted = [value for value in of_groups if not math.isnan(value)]
    return {**others, WORST_ACCURACY: min(counted)} if counted else others
