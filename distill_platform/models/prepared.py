"""What preprocessing gives to a body, and what every kind of it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

from distill_platform.data.schema import InputSpec


class Prepared(NamedTuple):
    """What a body is called with: values `[B, *shape]`; mask `[B, T]`, where inputs have padding: True counts."""

    values: Tensor
    mask: Tensor | None = None


class Preprocess(Protocol):
    """A kind of preprocessing, with its settings; a frozen dataclass."""

    kind: ClassVar[str]

    @property
    def num_ids(self) -> int:
        """Number of different ids, if it gives whole numbers to embed; 0 if it gives real values."""

    @property
    def files(self) -> Mapping[str, bytes]:
        """What it needs beside its settings, kept as files of the model folder; empty for most."""

    def shape(self, input: InputSpec) -> tuple[int, ...]:
        """Of one preprocessed input."""

    def module(self, input: InputSpec) -> nn.Module:
        """Raw inputs `[B, *input.shape]` -> Prepared. Holds no weights that are saved."""

    def to_json(self) -> dict[str, Any]:
        """Its settings, and `kind`."""
