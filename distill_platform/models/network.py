"""Preprocessing and body as one module: raw inputs in, named outputs out.

Every model gives named outputs, each values `[…, C]` with a mask over the leading axes; losses, codecs and metrics are
written once for that. A body that returns a plain tensor `[B, C]` gives the output "logits".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill_platform.data.schema import InputSpec, Schema
from distill_platform.models.builders import build_body


class Output(NamedTuple):
    """Values `[…, C]`, and which of their leading positions count (None: all)."""

    values: Tensor
    mask: Tensor | None = None


Outputs = dict[str, Output]


@dataclass(frozen=True)
class Preprocess:
    """Standardisation by the training split's mean and standard deviation, per channel or per feature."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, schema: Schema) -> Preprocess:
        """What a model trained on this data applies. A constant channel is centred and left at its scale."""
        return cls(schema.mean, tuple(value if value > 0 else 1.0 for value in schema.std))

    def to_json(self) -> dict[str, Any]:
        return {"kind": "standardize", **asdict(self)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Preprocess:
        return cls(tuple(stored["mean"]), tuple(stored["std"]))


class Network(nn.Module):
    """A body behind its preprocessing. Raw images `[B, H, W, C]` or features `[B, F]` -> named outputs."""

    mean: Tensor
    scale: Tensor

    def __init__(self, body: nn.Module, input: InputSpec, preprocess: Preprocess) -> None:
        super().__init__()
        self.body = body
        self.is_image = input.kind == "image"
        self.register_buffer("mean", torch.tensor(preprocess.mean), persistent=False)
        self.register_buffer("scale", 1 / torch.tensor(preprocess.std), persistent=False)

    def forward(self, raw: Tensor) -> Outputs:
        values = (raw.to(self.mean.dtype) - self.mean) * self.scale
        if self.is_image:
            values = values.movedim(-1, 1).contiguous()
        outputs = self.body(values)
        if isinstance(outputs, Tensor):
            return {"logits": Output(outputs)}
        return {name: value if isinstance(value, Output) else Output(value) for name, value in outputs.items()}

    @property
    def num_parameters(self) -> int:
        """Number of weights, buffers left out."""
        return sum(parameter.numel() for parameter in self.parameters())


def build_network(
    name: str, args: Mapping[str, Any], input: InputSpec, num_classes: int, preprocess: Preprocess, seed: int
) -> Network:
    """A network with weights drawn from `seed` alone; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = build_body(name, args, body_shape(input), num_classes)
    return Network(body, input, preprocess)


def inference_batch_size(device: torch.device) -> int:
    """Inputs per forward pass without gradients. On a CPU small batches stay in cache: a pass over 1,024 images at once
    took three times as long per image as over 128, most of it page faults of fresh activations (docs/results.md)."""
    return 1024 if device.type == "cuda" else 128


def body_shape(input: InputSpec) -> tuple[int, ...]:
    """Shape of one preprocessed input: channels first for images."""
    if input.kind == "image":
        height, width, channels = input.shape
        return (channels, height, width)
    return tuple(input.shape)
