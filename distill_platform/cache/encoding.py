"""How a teacher's outputs are stored: everything, beside the values, that encoding and decoding depend on."""

from __future__ import annotations

from dataclasses import dataclass

from distill_platform.errors import FormatError

REMOVED = {"onebit": "ternary"}
"""Codecs that are not read any more, and what is in their place."""


@dataclass(frozen=True)
class Encoding:
    """A codec and its settings. A codec reads those that concern it; the others stand at their defaults.

    num_classes: C, the last axis of the logits. dtype: number format of what is stored as floats. keep: K, entries kept
    per unit. hidden_size: H, the width of the teacher's last hidden state.

    Raises FormatError for a codec that was removed.
    """

    codec: str
    num_classes: int
    dtype: str = "float16"
    keep: int = 0
    hidden_size: int = 0

    def __post_init__(self) -> None:
        if self.codec in REMOVED:
            raise FormatError(
                f"codec {self.codec} is not read any more; build the cache again, with codec {REMOVED[self.codec]} "
                "or auto, or use the release that wrote it"
            )
