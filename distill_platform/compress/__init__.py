"""From a trained student to the one that ships: each method from artifact to artifact.

store.py   the number format in which weights are stored
"""

from distill_platform.compress.store import store_weights

__all__ = ["store_weights"]
