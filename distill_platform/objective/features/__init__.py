"""The losses that compare layers, one file each: name in a spec -> what it is.

To add one: a file with its maths as a pure function, a module around it and a FeatureLoss, and a line in FEATURES.
"""

from distill_platform.objective.features.attention import attention
from distill_platform.objective.features.crd import crd
from distill_platform.objective.features.feature import FeatureLoss, Fit, Pair
from distill_platform.objective.features.hidden_states import hidden_states
from distill_platform.objective.features.hint import hint
from distill_platform.objective.features.rkd import rkd

FEATURES: dict[str, FeatureLoss] = {
    "hint": hint,
    "attention": attention,
    "rkd": rkd,
    "crd": crd,
    "hidden_states": hidden_states,
}

__all__ = ["FEATURES", "FeatureLoss", "Fit", "Pair"]
