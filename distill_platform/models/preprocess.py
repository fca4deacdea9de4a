"""What happens to a raw input before a body sees it: each kind a description that is saved, and a module that does it.

A raw input carries its own padding (`InputSpec.padding`), so whatever makes several values of it also makes the mask of
those that count. To add a kind: a dataclass below, a line in PREPROCESSING.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distill_platform.data.schema import InputSpec, Schema
from distill_platform.errors import FormatError
from distill_platform.models.log_mel import LogMel
from distill_platform.models.prepared import Prepared, Preprocess
from distill_platform.models.tokenized import TOKENIZER_FILE, Tokenized

__all__ = ["Ids", "LogMel", "Prepared", "Preprocess", "Standardize", "Tokenized", "preprocess_from_json"]


@dataclass(frozen=True)
class Standardize:
    """By the training split's mean and standard deviation, per channel or per feature; images become channels first."""

    kind: ClassVar[str] = "standardize"
    num_ids: ClassVar[int] = 0
    files: ClassVar[dict[str, bytes]] = {}
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, schema: Schema) -> Standardize:
        """What a model trained on this data applies. A constant channel is centred and left at its scale."""
        return cls(schema.mean, tuple(value if value > 0 else 1.0 for value in schema.std))

    @classmethod
    def of_pixels(cls, mean: Sequence[float], std: Sequence[float], input: InputSpec) -> Standardize:
        """What a model pretrained elsewhere applies: `mean` and `std` per colour, of pixels from 0 to 1. For a grey
        image the means of both.
        """
        if input.shape[-1] != len(mean):
            mean, std = [sum(mean) / len(mean)] * input.shape[-1], [sum(std) / len(std)] * input.shape[-1]
        scale = input.high - input.low
        return cls(tuple(input.low + scale * value for value in mean), tuple(scale * value for value in std))

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
    files: ClassVar[dict[str, bytes]] = {}
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


PREPROCESSING: dict[str, type[Any]] = {kind.kind: kind for kind in (Standardize, Ids, LogMel, Tokenized)}


def preprocess_from_json(stored: Mapping[str, Any], files: Mapping[str, bytes] | None = None) -> Preprocess:
    """What `to_json` wrote, with the files kept beside it. Raises FormatError for a kind that this release has not."""
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    kind = settings.pop("kind")
    if kind not in PREPROCESSING:
        raise FormatError(f"preprocessing {kind!r} is not known; this release has: {', '.join(PREPROCESSING)}")
    if kind == Tokenized.kind:
        settings["definition"] = (files or {})[TOKENIZER_FILE]
    made: Preprocess = PREPROCESSING[kind](**settings)
    return made
