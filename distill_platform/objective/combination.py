"""How much each of several teachers counts, for every example.

A response loss of several teachers is the weighted sum of its values for each of them. For soft targets that is, up to
a constant, the loss for the mixture of their distributions: sum over i of w_i KL(p_i || q) and KL(sum of w_i p_i || q)
have the same gradient in q. So every codec and every loss can be combined, and teachers need not share a codec.

Axes: B examples, N teachers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_platform.cache import DenseTarget, Target, TopKTarget
from distill_platform.data.schema import UNLABELLED
from distill_platform.objective.response.soft_targets import bucket_log_probabilities

METHODS = ("mean", "fixed", "learned", "confidence", "subgroup")
READS_LABELS = (DenseTarget, TopKTarget)
"""Targets that say how probable a label is: what `learned` and `confidence` ask."""
EM_STEPS = 200
EM_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Combination:
    """How several teachers become one.

    by:      mean; fixed: `weights`; learned: weights that make their mixture right on the validation split's labels;
             confidence: each example's, by how right each teacher is on it; subgroup: one teacher each, by `routes`
    names:   of the teachers
    weights: fixed: name -> share, summing to 1
    routes:  subgroup: name of a subgroup -> name of its teacher
    """

    by: str
    names: tuple[str, ...]
    weights: Mapping[str, float]
    routes: Mapping[str, str]

    @property
    def is_per_example(self) -> bool:
        """Whether weights differ from example to example."""
        return self.by in ("confidence", "subgroup")


def mixture_weights(log_probabilities_NB: Tensor) -> Tensor:
    """Weights `[N]` of the mixture of teachers that makes labels most probable, summing to 1.

    log_probabilities_NB: each teacher's log-probability of each label, in nats. The likelihood is concave in the
    weights, and expectation maximisation climbs it: Dempster, Laird and Rubin 1977, section 4.3 with fixed components.
    """
    log_p = log_probabilities_NB.double()
    weights = torch.full((len(log_p),), 1 / len(log_p), dtype=torch.float64)
    for _ in range(EM_STEPS):
        before = weights
        weights = torch.softmax(weights.log()[:, None] + log_p, dim=0).mean(1)
        if float((weights - before).abs().max()) < EM_TOLERANCE:
            break
    return weights.float()


def confidence_weights(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """Weights `[N, …]` that sum to 1 over the teachers: the less, the larger a teacher's cross-entropy with a label.

    log_probabilities: `[N, …]` in nats, of labels `[…]`. w_i = (1 - exp(L_i) / sum over j of exp(L_j)) / (N - 1) with
    L_i = -log p_i(label); equal shares where there is no label.

    Zhang, Chen and Wang 2022, arXiv:2201.00007, equation 2.
    """
    num_teachers = len(log_probabilities)
    weights = (1 - torch.softmax(-log_probabilities.float(), dim=0)) / (num_teachers - 1)
    return torch.where(labels == UNLABELLED, 1 / num_teachers, weights)


def routed_weights(subgroups_B: Tensor, teacher_of_subgroup: Sequence[int], num_teachers: int) -> Tensor:
    """Weights `[N, B]` of 0 and 1: each example's one teacher, by its subgroup; equal shares where there is none."""
    chosen = torch.as_tensor(teacher_of_subgroup, device=subgroups_B.device)[subgroups_B.clamp(min=0)]
    return torch.where(subgroups_B < 0, 1 / num_teachers, F.one_hot(chosen, num_teachers).T.float())


def label_log_probability(target: Target, labels: Tensor) -> Tensor:
    """A teacher's log-probability of each label `[…]` at T = 1, in nats; 0 where there is none.

    A label that is not among the K of a TopKTarget has an equal share of what the others have together.
    """
    assert isinstance(target, READS_LABELS), "the spec is refused"
    places = labels.clamp(min=0)[..., None]
    if isinstance(target, DenseTarget):
        found = F.log_softmax(target.logits.float(), -1).gather(-1, places)[..., 0]
    else:
        buckets = bucket_log_probabilities(target, 1.0)
        num_others = target.num_classes - target.ids.shape[-1]
        is_label = target.ids == places
        kept = torch.where(is_label, buckets[..., :-1], -math.inf).amax(-1)
        found = torch.where(is_label.any(-1), kept, buckets[..., -1] - math.log(num_others))
    return torch.where(labels == UNLABELLED, 0.0, found)
