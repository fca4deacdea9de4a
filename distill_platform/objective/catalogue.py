"""The literal dict of losses. To add one: a pure function in losses.py per target type, a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from distill_platform.cache import DenseTarget, SampledTarget, Target, TopKTarget
from distill_platform.models import Output
from distill_platform.objective import losses
from distill_platform.tasks.setting import TEMPERATURE, Setting


@dataclass(frozen=True)
class Loss:
    """A loss by what it is computed from.

    functions: target type -> (student output, target, **settings) -> scalar. Every codec that decodes to one of these
               types can carry the loss.
    settings:  what it may be set to, by name.
    needs_labels: whether its functions take the labels as third argument. What is UNLABELLED does not count then.
    """

    functions: Mapping[type[Target], Callable[..., Tensor]]
    settings: Mapping[str, Setting]
    needs_labels: bool = False

    @property
    def accepts(self) -> tuple[type[Target], ...]:
        """The target types it can be computed from."""
        return tuple(self.functions)

    def __call__(self, output: Output, target: Target, labels: Tensor | None = None, **settings: Any) -> Tensor:
        """Its value for a student's output and a teacher's, on the student's device."""
        given = (output, target.to(output.values.device), *((labels,) if self.needs_labels else ()))
        return self.functions[type(target)](*given, **settings)


def _dense(output: Output, target: DenseTarget, **settings: Any) -> Tensor:
    return losses.soft_targets(output.values, target.logits, mask=output.mask, **settings)


def _topk(output: Output, target: TopKTarget, **settings: Any) -> Tensor:
    return losses.soft_targets_topk(output.values, target, mask=output.mask, **settings)


def _sampled(output: Output, target: SampledTarget, temperature: float | Tensor) -> Tensor:
    assert isinstance(temperature, Tensor) or temperature == 1, "sampled targets are of T = 1; the spec is refused"
    return losses.soft_targets_sampled(output.values, target, mask=output.mask)


LOSSES: dict[str, Loss] = {
    "soft_targets": Loss(
        functions={DenseTarget: _dense, TopKTarget: _topk, SampledTarget: _sampled},
        settings={"temperature": TEMPERATURE},
    ),
}


VALIDATION = ("soft_targets", 1.0)
"""The loss and its temperature that validation compares students by."""


def kl_to_teacher(output: Output, target: Target) -> Tensor:
    """How far a student's distribution is from the teacher's at T = 1, in nats: what trials are compared by.

    KL(teacher || student); over K + 1 buckets from a target of the K largest; and from a sampled target that plus about
    the teacher's entropy, a constant of the cache, so students rank as they would without it.
    """
    name, temperature = VALIDATION
    return LOSSES[name](output, target, temperature=temperature)
