"""Asynchronous successive halving, stopping variant, as pure functions. Li et al. 2020, arXiv:1810.05934, alg. 2."""

from __future__ import annotations

import math
from collections.abc import Collection


def rungs(epochs: int, grace_epochs: int, reduction: int) -> list[int]:
    """Numbers of epochs after which members are compared: grace, grace times reduction, …, below `epochs`."""
    found = []
    rung = grace_epochs
    while rung < epochs:
        found.append(rung)
        rung *= reduction
    return found


def keeps(score: float, scores: Collection[float], reduction: int) -> bool:
    """Whether a member with `score` goes on past a rung where `scores` (its own among them) were reported so far.

    It does if it is among the best 1/reduction of them, at least one; higher is better.
    """
    kept = max(1, math.ceil(len(scores) / reduction))
    return sum(other > score for other in scores) < kept
