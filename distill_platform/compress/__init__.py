"""From a trained student to the one that ships: each method from artifact to artifact.

store.py       the number format in which weights are stored
calibrate.py   what is put right of its logits
"""

from distill_platform.compress.calibrate import calibrate_model
from distill_platform.compress.store import store_weights

__all__ = ["calibrate_model", "store_weights"]
