"""The shape of a response loss: one that compares a student's output with what a cache holds of the teacher's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from distill_platform.cache import DenseTarget, Target
from distill_platform.models import Output
from distill_platform.tasks.setting import Setting


@dataclass(frozen=True)
class CombinedTarget(Target):
    """What several teachers say, each with how much it counts: a number, or one for each example `[B]` or position.

    What they count sums to 1.
    """

    parts: tuple[tuple[Target, float | Tensor], ...]


@dataclass(frozen=True)
class Loss:
    """A loss by what it is computed from.

    functions: target type -> (student's values, target, [labels,] mask=…, **settings) -> scalar. Every codec that
               decodes to one of these types can carry the loss.
    settings:  what it may be set to, by name, beside its weight.
    needs_labels: whether its functions take the labels as third argument. What is UNLABELLED does not count then, and
               mixed examples are refused, since they have two labels.
    dense_only: settings that, where true, ask for every logit of the teacher. Functions of other targets lack them.
    unsoftened: whether logits are compared as they are, and no softmax at some temperature comes before.
    """

    functions: Mapping[type[Target], Callable[..., Tensor]]
    settings: Mapping[str, Setting]
    needs_labels: bool = False
    dense_only: tuple[str, ...] = ()
    unsoftened: bool = False
    takes_layers: ClassVar[bool] = False
    """Whether a spec has to say which layers it compares."""

    def accepts(self, settings: Mapping[str, Any] | None = None) -> tuple[type[Target], ...]:
        """The target types it can be computed from with these settings; without any, with those of `settings`."""
        given = {name: setting.default for name, setting in self.settings.items()} | dict(settings or {})
        if any(given[name] is True for name in self.dense_only):
            return (DenseTarget,)
        return tuple(self.functions)

    def __call__(self, output: Output, target: Target, labels: Tensor | None = None, **settings: Any) -> Tensor:
        """Its value for a student's output and a teacher's, on the student's device; of several teachers their sum."""
        if isinstance(target, CombinedTarget):
            parts = [(counting(output, weight), part) for part, weight in target.parts]
            values = [share * self(counted, part, labels, **settings) for (counted, share), part in parts]
            return torch.stack(values).sum()
        assert type(target) in self.accepts(settings), "the spec is refused"
        if not isinstance(target, DenseTarget):
            settings = {name: value for name, value in settings.items() if name not in self.dense_only}
        given = (output.values, target.to(output.values.device), *((labels,) if self.needs_labels else ()))
        return self.functions[type(target)](*given, mask=output.mask, **settings)


def counting(output: Output, weight: float | Tensor) -> tuple[Output, float | Tensor]:
    """An output whose positions count as much as `weight` says, or `[B]` of each example; and the share of all that
    this is, by which a mean over what counts becomes one over all.
    """
    if not isinstance(weight, Tensor):
        return output, weight
    values = output.values
    counts = torch.ones(values.shape[:-1], device=values.device) if output.mask is None else output.mask.float()
    weighted = counts * weight.to(values.device).view(*weight.shape, *[1] * (counts.ndim - weight.ndim))
    return output._replace(mask=weighted), weighted.sum() / counts.sum().clamp(min=1)


def of_logits(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of the student's and the teacher's logits as one of a DenseTarget."""

    def loss(student: Tensor, target: DenseTarget, *labels: Tensor, **settings: Any) -> Tensor:
        return function(student, target.logits, *labels, **settings)

    return loss
