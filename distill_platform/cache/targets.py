"""What a loss is handed about the teacher: decoded, and aware of what it holds.

A loss names the target types that it accepts (`objective.LOSSES`); a codec names the type that it decodes to. Where the
two do not meet, the spec is refused before anything runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Target:
    """Base of all targets."""


@dataclass(frozen=True)
class DenseTarget(Target):
    """Raw logits of every class, `[…, C]` fp32, T = 1: exact at every temperature up to the stored precision."""

    logits: Tensor
