"""The losses that compare a student's output with the teacher's: name in a spec -> what it is.

positions.py     which positions count
soft_targets.py  KL(teacher || student), from all logits, the K largest, or samples; softening and standardising
divergences.py   reverse, Jensen-Shannon and skewed, over all classes or over buckets
decoupled.py     label and non-label classes apart
dist.py          correlations over classes and over positions
logits.py        without a softmax
"""

from distill_platform.objective.loss import Loss
from distill_platform.objective.response.decoupled import DKD
from distill_platform.objective.response.dist import DIST
from distill_platform.objective.response.divergences import (
    JENSEN_SHANNON,
    REVERSE_KL,
    SKEWED_KL,
    SKEWED_REVERSE_KL,
)
from distill_platform.objective.response.logits import LOGIT_MSE
from distill_platform.objective.response.soft_targets import SOFT_TARGETS

RESPONSE: dict[str, Loss] = {
    "soft_targets": SOFT_TARGETS,
    "reverse_kl": REVERSE_KL,
    "jensen_shannon": JENSEN_SHANNON,
    "skewed_kl": SKEWED_KL,
    "skewed_reverse_kl": SKEWED_REVERSE_KL,
    "dkd": DKD,
    "dist": DIST,
    "logit_mse": LOGIT_MSE,
}
