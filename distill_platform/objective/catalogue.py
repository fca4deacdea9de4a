"""The literal dict of losses. To add one: a file in response/ or features/, a line in that folder's own dict."""

from __future__ import annotations

from torch import Tensor

from distill_platform.cache import Target
from distill_platform.models import Output
from distill_platform.objective.features import FEATURES, FeatureLoss
from distill_platform.objective.loss import Loss
from distill_platform.objective.response import RESPONSE

LOSSES: dict[str, Loss | FeatureLoss] = {**RESPONSE, **FEATURES}

VALIDATION = ("soft_targets", 1.0)
"""The loss and its temperature that validation compares students by."""


def kl_to_teacher(output: Output, target: Target) -> Tensor:
    """How far a student's distribution is from the teacher's at T = 1, in nats: what trials are compared by.

    KL(teacher || student); over K + 1 buckets from a target of the K largest; and from a sampled target that plus about
    the teacher's entropy, a constant of the cache, so students rank as they would without it.
    """
    name, temperature = VALIDATION
    return RESPONSE[name](output, target, temperature=temperature)
