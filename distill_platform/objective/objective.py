"""The weighted combination of a task loss and distillation losses, kept term by term."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from distill_platform.data.mixing import MixedLabels
from distill_platform.errors import ModelError
from distill_platform.models import Outputs, SavedModel
from distill_platform.models.capture import ATTENTION, Answer, layer_shapes, pooled
from distill_platform.objective.answers import START, Moment, TeacherAnswer
from distill_platform.objective.catalogue import LOSSES
from distill_platform.objective.features import FEATURES, FeatureLoss, Fit, Pair
from distill_platform.objective.layers import LayerPair, Shapes, merged, pair_layers, pooled_shape
from distill_platform.objective.loss import Loss, counting
from distill_platform.objective.schedules import value_at
from distill_platform.tasks import Task

TASK = "task"
"""The name of the task loss among the terms."""


@dataclass(frozen=True)
class Term:
    """One loss of an objective: a name of LOSSES, or TASK; its weight and settings, numbers or schedules.

    layers: of a feature loss, name or pattern of the teacher's layers -> of the student's.
    """

    name: str
    weight: Any
    settings: Mapping[str, Any] = field(default_factory=dict)
    layers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Objective:
    """Sum over terms of weight times loss.

    pairs, modules: of each feature loss, its pairs of layers and what compares them; empty until `fitted`. The
                    parameters of the modules are trained with the student's.
    """

    task: Task
    terms: tuple[Term, ...]
    pairs: Mapping[str, tuple[LayerPair, ...]] = field(default_factory=dict)
    modules: nn.ModuleDict = field(default_factory=nn.ModuleDict)

    @classmethod
    def of(cls, task: Task, terms: Mapping[str, Mapping[str, Any]]) -> Objective:
        """From the spec's form: loss name -> weight, layers of a feature loss, and settings."""
        return cls(task, tuple(_term(name, given) for name, given in terms.items()))

    @property
    def needs_teacher(self) -> bool:
        """Whether a term has to be handed the teacher's outputs."""
        return any(term.name != TASK for term in self.terms)

    @property
    def teacher_layers(self) -> dict[str, str]:
        """Name or pattern of each layer of the teacher that a term compares -> "pooled" or "whole"."""
        return merged(*(dict.fromkeys(term.layers, FEATURES[term.name].mode) for term in self._features))

    @property
    def student_layers(self) -> dict[str, str]:
        """As `teacher_layers`, of the student."""
        return merged(*(dict.fromkeys(term.layers.values(), FEATURES[term.name].mode) for term in self._features))

    def fitted(self, student: Shapes, teacher: Shapes, num_examples: int, seed: int) -> Objective:
        """The same, ready to compare layers of these shapes; weights are drawn from `seed` alone.

        student, teacher: of every layer that is there, as `layer_shapes` gives them. num_examples: of the train split.

        Raises ModelError, with term and layers, for names that fit nothing and layers that cannot be compared.
        """
        pairs = {
            term.name: pair_layers(f"objective.{term.name}.layers", term.layers, teacher, student)
            for term in self._features
        }
        modules = nn.ModuleDict()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for term in self._features:
                fits = {pair: (student[pair.student], teacher[pair.teacher]) for pair in pairs[term.name]}
                modules[term.name] = nn.ModuleList(
                    _module(term, pair, *shapes, num_examples=num_examples, seed=seed) for pair, shapes in fits.items()
                )
        return replace(self, pairs=pairs, modules=modules)

    def __call__(
        self,
        answer: Answer,
        labels: Tensor,
        teacher: TeacherAnswer | None = None,
        mixed: MixedLabels | None = None,
        moment: Moment = START,
        weight: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The weighted value of each term, scalars that carry gradients; their sum is the training loss.

        mixed: the labels of the examples' partners, where examples are mixed.
        weight: `[B]`, how much each example counts in the task loss and in losses of outputs (None: 1), where the mean
        is still over all that counts. Losses that compare layers take every example alike: of those that compare
        examples with each other no part is one example's.
        """
        given = (answer, labels, teacher, mixed, moment, weight)
        return {term.name: value_at(term.weight, moment.done) * self._value(term, *given) for term in self.terms}

    def task_loss(self, outputs: Outputs, labels: Tensor, weight: Tensor) -> Tensor:
        """The task's loss on labels, with the settings of the task's term if there is one; `weight` as `Task.loss`."""
        settings = next((term.settings for term in self.terms if term.name == TASK), {})
        return self.task.loss(outputs, labels, weight=weight, **{k: value_at(v, 0.0) for k, v in settings.items()})

    @property
    def _features(self) -> list[Term]:
        return [term for term in self.terms if term.name in FEATURES]

    def _value(
        self,
        term: Term,
        answer: Answer,
        labels: Tensor,
        teacher: TeacherAnswer | None,
        mixed: MixedLabels | None,
        moment: Moment,
        weight: Tensor | None,
    ) -> Tensor:
        settings = {name: value_at(value, moment.done) for name, value in term.settings.items()}
        if term.name == TASK and mixed is not None:
            assert weight is None, "the spec is refused"
            own = self.task.loss(answer.outputs, labels, weight=mixed.weight, **settings)
            return own + self.task.loss(answer.outputs, mixed.partner, weight=1 - mixed.weight, **settings)
        if term.name == TASK:
            return self.task.loss(answer.outputs, labels, weight=weight, **settings)
        assert teacher is not None, f"the term {term.name} needs the teacher's outputs"
        loss = LOSSES[term.name]
        if isinstance(loss, Loss):
            output = answer.outputs[self.task.output]
            if weight is None:
                return loss(output, teacher.target, labels, **settings)
            counted, share = counting(output, weight)
            return share * loss(counted, teacher.target, labels, **settings)
        values = [
            module(_pair(loss, pair, answer, teacher, moment), settings)
            for pair, module in zip(self.pairs[term.name], self.modules[term.name], strict=True)  # type: ignore[call-overload]
        ]
        return torch.stack(values).sum()


def without_teacher(terms: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The objective of a baseline: the task loss at weight 1 with its own settings, and nothing from a teacher."""
    return {TASK: {**terms.get(TASK, {}), "weight": 1.0}}


def check_layers(objective: Objective, student: SavedModel, teacher: Shapes, num_examples: int) -> None:
    """Raises ModelError, as `Objective.fitted`, for a student whose layers cannot be compared with a teacher's.

    It is built and called without memory or arithmetic. teacher: as `layer_shapes` gives them.
    """
    if not objective.teacher_layers:
        return
    ours = layer_shapes(student, objective.student_layers, "objective", "the student")
    with torch.device("meta"):
        objective.fitted(ours, teacher, num_examples, seed=0)


def gradient_shares(terms: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, float]:
    """Each term's share of the summed gradient norms over the parameters, 0 to 1; the graph is kept for the step.

    A weight that does nothing is the commonest silent fault of a distillation: a term that never reaches a hundredth
    is named in the report.
    """
    norms = {name: _gradient_norm(value, parameters) for name, value in terms.items()}
    total = sum(norms.values())
    return {name: norm / total if total > 0 else 0.0 for name, norm in norms.items()}


def _gradient_norm(value: Tensor, parameters: Sequence[nn.Parameter]) -> float:
    if not value.requires_grad:  # of layers that lie before every parameter
        return 0.0
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    norms = [gradient.double().norm() for gradient in gradients if gradient is not None]
    return float(torch.stack(norms).norm()) if norms else 0.0


def _term(name: str, given: Mapping[str, Any]) -> Term:
    settings = {key: value for key, value in given.items() if key not in ("weight", "layers")}
    if name in FEATURES:
        settings = {key: setting.default for key, setting in FEATURES[name].settings.items()} | settings
    return Term(name, given["weight"], settings, dict(given.get("layers", {})))


def _module(
    term: Term, pair: LayerPair, student: tuple[int, ...], teacher: tuple[int, ...], num_examples: int, seed: int
) -> nn.Module:
    loss, is_attention = FEATURES[term.name], pair.teacher.endswith(ATTENTION)
    if loss.mode == "pooled":
        student, teacher = pooled_shape(student, is_attention), pooled_shape(teacher, is_attention)
    settings = {name: value_at(value, 0.0) for name, value in term.settings.items()}
    try:
        return loss.build(Fit(student, teacher, is_attention, num_examples, seed), settings)
    except ModelError as error:
        raise ModelError(f"objective.{term.name}.layers, {pair.teacher}: {pair.student}: {error}") from error


def _pair(loss: FeatureLoss, pair: LayerPair, answer: Answer, teacher: TeacherAnswer, moment: Moment) -> Pair:
    """Both layers of a batch as the loss wants them, on the student's device."""
    student = answer.layers[pair.student]
    wanted = teacher.layers[pair.teacher].to(student.device, non_blocking=True).float()
    if loss.mode == "pooled":
        tokens = answer.mask.shape[1] if answer.mask is not None and wanted.ndim == 3 else None
        student, wanted = pooled(student, answer.mask), pooled(wanted[:, :tokens], answer.mask)
    return Pair(student, wanted, answer.mask, moment.index, moment.step)
