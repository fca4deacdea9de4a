"""Preprocessing and body as one module: raw inputs in, named outputs out.

Every model gives named outputs, each values `[…, C]` with a mask over the leading axes; losses, codecs and metrics are
written once for that. A body that returns a plain tensor `[B, C]` or `[B, T, C]` gives the output "logits". Where
inputs have padding the body is called with values and mask, and what stands in padding must not reach what counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill_platform.data.schema import InputSpec
from distill_platform.models.builders import build_body
from distill_platform.models.preprocess import Prepared, Preprocess


class Output(NamedTuple):
    """Values `[…, C]`, and which of their leading positions count (None: all)."""

    values: Tensor
    mask: Tensor | None = None


Outputs = dict[str, Output]


class Network(nn.Module):
    """A body behind its preprocessing. Raw inputs `[B, *shape]` -> named outputs."""

    def __init__(self, body: nn.Module, input: InputSpec, preprocess: Preprocess) -> None:
        super().__init__()
        self.body = body
        self.preprocess = preprocess.module(input)

    def forward(self, raw: Tensor) -> Outputs:
        prepared: Prepared = self.preprocess(raw)
        given = prepared if prepared.mask is not None else prepared[:1]
        outputs = self.body(*given)
        named = {"logits": outputs} if isinstance(outputs, Tensor) else outputs
        return {name: _output(value, prepared.mask) for name, value in named.items()}

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
        body = build_body(name, args, input, num_classes, preprocess)
    return Network(body, input, preprocess)


def inference_batch_size(device: torch.device) -> int:
    """Inputs per forward pass without gradients. On a CPU small batches stay in cache: a pass over 1,024 images at once
    took three times as long per image as over 128, most of it page faults of fresh activations (docs/results.md)."""
    return 1024 if device.type == "cuda" else 128


def _output(value: Tensor | Output, mask: Tensor | None) -> Output:
    """A body's value with the mask of its positions, if it has positions and says nothing of them itself."""
    if isinstance(value, Output):
        return value
    has_positions = mask is not None and value.ndim == 3 and value.shape[:2] == mask.shape
    return Output(value, mask if has_positions else None)
