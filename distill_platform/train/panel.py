"""Several teachers as one: each example's answer is all of theirs, and how much each counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_platform.data.examples import Examples
from distill_platform.data.order import Blocks
from distill_platform.data.schema import UNLABELLED
from distill_platform.models import inference_batch_size
from distill_platform.objective.answers import TeacherAnswer
from distill_platform.objective.combination import (
    Combination,
    confidence_weights,
    label_log_probability,
    mixture_weights,
    routed_weights,
)
from distill_platform.objective.loss import CombinedTarget
from distill_platform.train.teachers import Teacher

SEPARATOR = "/"
"""Between a teacher's name and its layer's, where there are several."""


def layers_of(teacher: str, layers: Mapping[str, str]) -> dict[str, str]:
    """Of names or patterns `<teacher>/<layer>` -> mode, those of one teacher, without its name."""
    prefix = f"{teacher}{SEPARATOR}"
    return {name.removeprefix(prefix): mode for name, mode in layers.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Panel:
    """Teachers of one split, by name, in the order of the combination.

    weights: `[N]`, of combinations whose weights are the same for all examples.
    """

    members: Mapping[str, Teacher]
    combination: Combination
    examples: Examples
    weights: Tensor | None

    @property
    def digest(self) -> str:
        """Those of its members, in order."""
        return "+".join(member.digest for member in self.members.values())

    @property
    def layer_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """`<teacher>/<layer>` -> shape of its values of one example."""
        return {
            f"{name}{SEPARATOR}{layer}": shape
            for name, member in self.members.items()
            for layer, shape in member.layer_shapes.items()
        }

    def __call__(self, index: Tensor, view: Tensor, inputs: Tensor) -> TeacherAnswer:
        """The answers to examples `index` `[B]` as seen in `view` `[B]`."""
        answers = {name: member(index, view, inputs) for name, member in self.members.items()}
        targets = [answer.target for answer in answers.values()]
        layers = {
            f"{name}{SEPARATOR}{layer}": values
            for name, answer in answers.items()
            for layer, values in answer.layers.items()
        }
        weights: Sequence[Tensor | float]
        if self.weights is not None:
            weights = self.weights.tolist()
        elif self.combination.by == "subgroup":
            weights = list(self._routed(index))
        else:
            labels = self.examples.labels.index_select(0, index).long()
            found = torch.stack([label_log_probability(target, labels) for target in targets])
            weights = list(confidence_weights(found, labels))
        return TeacherAnswer(CombinedTarget(tuple(zip(targets, weights, strict=True))), layers)

    def prefetch(self, reads: Sequence[Blocks]) -> None:
        """What will be asked for next."""
        for member in self.members.values():
            member.prefetch(reads)

    def close(self) -> None:
        """Give back what its members hold."""
        for member in self.members.values():
            member.close()

    def _routed(self, index: Tensor) -> Tensor:
        assert self.examples.subgroups is not None, "the spec is refused"
        names, routes = list(self.members), self.combination.routes
        of_subgroup = [names.index(routes[name]) for name in self.examples.schema.subgroup_names]
        return routed_weights(self.examples.subgroups.index_select(0, index), of_subgroup, len(names))


def fixed_weights(combination: Combination, members: Mapping[str, Teacher], validation: Examples) -> Tensor | None:
    """Weights `[N]` of a combination; None where they differ from example to example.

    members: the teachers of the validation split, whose labels the learned weights go by: no teacher was trained on
    them, as each was on the train split's.
    """
    if combination.is_per_example:
        return None
    if combination.by == "fixed":
        return torch.tensor([combination.weights[name] for name in members])
    if combination.by == "mean":
        return torch.full((len(members),), 1 / len(members))
    found = []
    for index in torch.arange(len(validation)).split(inference_batch_size(torch.device("cpu"))):
        labels = validation.labels[index[0] : index[-1] + 1].long()
        inputs = validation.inputs[index[0] : index[-1] + 1]
        answers = [member(index, torch.zeros_like(index), inputs) for member in members.values()]
        of_part = torch.stack([label_log_probability(answer.target, labels) for answer in answers])
        found.append(of_part[:, labels != UNLABELLED])
    return mixture_weights(torch.cat(found, dim=1))
