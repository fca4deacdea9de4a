"""What may be put right in a trained classifier without training: how sure it is, and how often it names a class.

Both are fitted to the validation split alone, never to training data (on which a model is surer than it should be) nor
to test data; both minimise a convex function, so there is one answer. Logits are raw, `[N, C]`, or `[N, T, C]` with
labels `[N, T]`; what is UNLABELLED counts nowhere. Axes: N examples, T tokens, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distill_platform.tasks.task import UNLABELLED

TEMPERATURES = (0.01, 100.0)
"""Beyond these a model is all but certain, or knows all but nothing."""

MAX_ROUNDS = 10_000
TOLERANCE = 1e-6


def calibrate(logits: Tensor, labels: Tensor) -> float:
    """The temperature T for which softmax(logits / T) gives the labels the best mean log-likelihood.

    Guo et al. 2017, arXiv:1706.04599, section 4.2, "temperature scaling". It leaves every prediction as it is. Where
    predictions are all right no temperature is low enough, and where they say nothing none is high enough: the answer
    is then the nearer end of TEMPERATURES. Raises ValueError if nothing is labelled, or a logit is not finite.
    """
    logits, labels = _labelled(logits, labels)
    right = logits.gather(1, labels[:, None]).squeeze(1)

    def slope(beta: float) -> float:
        """Derivative of the mean negative log-likelihood by beta = 1 / T, in which it is convex."""
        return float(((logits * beta).softmax(1) * logits).sum(1).sub(right).mean())

    lowest, highest = TEMPERATURES
    low, high = 1 / highest, 1 / lowest
    if slope(low) >= 0:
        return highest
    if slope(high) <= 0:
        return lowest
    while high - low > TOLERANCE * low:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def bias_correction(logits: Tensor, class_priors: Tensor) -> Tensor:
    """What to add to the logits `[C]`, sum 0, for each class to be predicted with the frequency that it has.

    That frequency is of probabilities: the mean over N of softmax(logits + bias) is `class_priors` `[C]`. It repairs a
    student that was never shown a class, the omitted digit of Hinton et al. 2015, arXiv:1503.02531, section 3, whose
    bias its training cannot learn. Logits are `[N, C]`. The bias maximises the concave priors . bias - mean
    logsumexp(logits + bias), one coordinate block at a time (Sinkhorn's iteration; Cuturi 2013, arXiv:1306.0895).

    Raises ValueError unless all priors are above 0 and sum to 1 (`class_priors` makes such of counts), or if a logit is
    not finite.
    """
    priors = class_priors.double()
    if not (priors > 0).all() or abs(float(priors.sum()) - 1) > TOLERANCE:
        raise ValueError(f"class priors are {priors.tolist()}, wanted shares above 0 that sum to 1")
    logits = logits.double().flatten(0, -2)
    _check_finite(logits)
    bias = torch.zeros_like(priors)
    for _ in range(MAX_ROUNDS):
        ratio = (priors / (logits + bias).softmax(1).mean(0).clamp(min=torch.finfo(torch.float64).tiny)).log()
        bias = bias + ratio
        if float(ratio.abs().max()) < TOLERANCE:
            break
    return bias - bias.mean()


def class_priors(labels: Tensor, num_classes: int) -> Tensor:
    """How often each class occurs `[C]`: counts and half an example more (Jeffreys' prior), so that none is 0."""
    counts = torch.bincount(labels[labels != UNLABELLED].flatten().long(), minlength=num_classes).double() + 0.5
    return counts / counts.sum()


def _labelled(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits `[M, C]` in float64 and labels `[M]` of what is labelled."""
    logits, labels = logits.double().flatten(0, -2), labels.flatten().long()
    counted = labels != UNLABELLED
    if not counted.any():
        raise ValueError("no label to calibrate on; give a validation split with labels")
    _check_finite(logits[counted])
    return logits[counted], labels[counted]


def _check_finite(logits: Tensor) -> None:
    if not torch.isfinite(logits).all():
        raise ValueError("some logits are not finite numbers, so nothing can be fitted to them")
