"""What happens to a raw input before a body sees it: each kind a description that is saved, and a module that does it.

A raw input carries its own padding (`InputSpec.padding`), so whatever makes several values of it also makes the mask of
those that count. To add a kind: a dataclass below, a line in PREPROCESSING.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from distill_platform.data.schema import InputSpec, Schema
from distill_platform.errors import FormatError


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

    def shape(self, input: InputSpec) -> tuple[int, ...]:
        """Of one preprocessed input."""

    def module(self, input: InputSpec) -> nn.Module:
        """Raw inputs `[B, *input.shape]` -> Prepared. Holds no weights that are saved."""

    def to_json(self) -> dict[str, Any]:
        """Its settings, and `kind`."""


@dataclass(frozen=True)
class Standardize:
    """By the training split's mean and standard deviation, per channel or per feature; images become channels first."""

    kind: ClassVar[str] = "standardize"
    num_ids: ClassVar[int] = 0
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, schema: Schema) -> Standardize:
        """What a model trained on this data applies. A constant channel is centred and left at its scale."""
        return cls(schema.mean, tuple(value if value > 0 else 1.0 for value in schema.std))

    def shape(self, input: InputSpec) -> tuple[int, ...]:
        if input.kind == "image":
            height, width, channels = input.shape
            return (channels, height, width)
        return tuple(input.shape)

    def module(self, input: InputSpec) -> nn.Module:
        return _Standardizing(self, input.kind == "image")

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


class _Standardizing(nn.Module):
    mean: Tensor
    scale: Tensor

    def __init__(self, settings: Standardize, is_image: bool) -> None:
        super().__init__()
        self.is_image = is_image
        self.register_buffer("mean", torch.tensor(settings.mean), persistent=False)
        self.register_buffer("scale", 1 / torch.tensor(settings.std), persistent=False)

    def forward(self, raw: Tensor) -> Prepared:
        values = (raw.to(self.mean.dtype) - self.mean) * self.scale
        return Prepared(values.movedim(-1, 1).contiguous() if self.is_image else values)


@dataclass(frozen=True)
class Ids:
    """Whole numbers as they are, padding as id 0: bytes of text (256 of them, none 0), or tokens shifted up by one."""

    kind: ClassVar[str] = "ids"
    num_ids: int
    """Ids with the padding's, which is 0."""

    def shape(self, input: InputSpec) -> tuple[int, ...]:
        return tuple(input.shape)

    def module(self, input: InputSpec) -> nn.Module:
        assert input.padding is not None
        return _TakingIds(input.padding)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


class _TakingIds(nn.Module):
    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, raw: Tensor) -> Prepared:
        return Prepared(raw.long() - self.padding, raw != self.padding)


PREPROCESSING: dict[str, type[Any]] = {kind.kind: kind for kind in (Standardize, Ids)}


def preprocess_for(name: str, args: Mapping[str, Any], schema: Schema) -> Preprocess:
    """What a model of this name and arguments applies to this data, where it is trained here."""
    kind = schema.input.kind
    if kind == "text":
        return Ids(256)
    if kind == "tokens":
        return Ids(len(schema.class_names) + 1)
    return Standardize.of(schema)


def preprocess_from_json(stored: Mapping[str, Any]) -> Preprocess:
    """What `to_json` wrote. Raises FormatError for a kind that this release does not have."""
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    kind = settings.pop("kind")
    if kind not in PREPROCESSING:
        raise FormatError(f"preprocessing {kind!r} is not known; this release has: {', '.join(PREPROCESSING)}")
    made: Preprocess = PREPROCESSING[kind](**settings)
    return made
