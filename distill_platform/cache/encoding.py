"""How a teacher's outputs are stored: everything, beside the values, that encoding and decoding depend on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Encoding:
    """A codec and its settings. A codec reads those that concern it; the others stand at their defaults.

    num_classes: C, the last axis of the logits. dtype: number format of what is stored as floats. keep: K, entries kept
    per unit. hidden_size: H, the width of the teacher's last hidden state.
    """

    codec: str
    num_classes: int
    dtype: str = "float16"
    keep: int = 0
    hidden_size: int = 0
