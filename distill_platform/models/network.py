"""Preprocessing and body as one module: raw inputs in, named outputs out.

Every model gives named outputs, each values `[…, C]` with a mask over the leading axes; losses, codecs and metrics are
written once for that. A body that returns a plain tensor `[B, C]` or `[B, T, C]` gives the output "logits". Where
inputs have padding the body is called with values and mask, and what stands in padding must not reach what counts. So
a batch is cut behind its longest sequence before the body sees it (docs/models.md has what that saves).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_platform.data.schema import InputSpec
from distill_platform.models.builders import build_body
from distill_platform.models.prepared import Prepared, Preprocess

GRAIN = 16
"""Batches are cut to a multiple of so many positions: few different shapes, and ones that kernels like."""


class Output(NamedTuple):
    """Values `[…, C]`, and which of their leading positions count (None: all)."""

    values: Tensor
    mask: Tensor | None = None


Outputs = dict[str, Output]


class Calibration(NamedTuple):
    """What is done to logits `[…, C]` after the body: each times `scale`, and `bias` of its class added (None: 0)."""

    scale: float = 1.0
    bias: tuple[float, ...] | None = None


class Network(nn.Module):
    """A body behind its preprocessing. Raw inputs `[B, *shape]` -> named outputs.

    calibration: what is done to the output "logits" after it; no weights of the network, and never trained.
    """

    calibration_bias: Tensor | None

    def __init__(
        self, body: nn.Module, input: InputSpec, preprocess: Preprocess, calibration: Calibration | None = None
    ) -> None:
        super().__init__()
        self.calibration = calibration
        bias = torch.tensor(calibration.bias) if calibration is not None and calibration.bias is not None else None
        self.register_buffer("calibration_bias", bias, persistent=False)
        self.body = body
        self.preprocess = preprocess.module(input)
        self.padding = input.padding
        self.num_positions = preprocess.shape(input)[-1]
        self.raw_grain = GRAIN * math.ceil(input.shape[-1] / self.num_positions)

    def forward(self, raw: Tensor) -> Outputs:
        padding = self.padding
        if padding is not None and (not _has_values(raw) or self._is_listened_to()):
            padding = None
        if padding is not None:
            raw = raw[..., : _longest(raw.ne(padding), self.raw_grain)]
        prepared: Prepared = self.preprocess(raw)
        if padding is not None and prepared.mask is not None:
            length = _longest(prepared.mask, GRAIN)
            prepared = Prepared(prepared.values[..., :length], prepared.mask[:, :length])
        given = prepared if prepared.mask is not None else prepared[:1]
        outputs = self.body(*given)
        named = {"logits": outputs} if isinstance(outputs, Tensor) else outputs
        found = {name: _output(value, prepared.mask, self.num_positions) for name, value in named.items()}
        if self.calibration is not None:
            found["logits"] = self._calibrated(found["logits"], self.calibration.scale)
        return found

    def _calibrated(self, output: Output, scale: float) -> Output:
        values = output.values * scale
        return output._replace(values=values if self.calibration_bias is None else values + self.calibration_bias)

    def _is_listened_to(self) -> bool:
        """Whether a hook takes what some layer gives: then all batches have to be of one length."""
        return any(module._forward_hooks for module in (self, *self.body.modules()))

    @property
    def num_parameters(self) -> int:
        """Number of weights, buffers left out."""
        return sum(parameter.numel() for parameter in self.parameters())


def build_network(
    name: str,
    args: Mapping[str, Any],
    input: InputSpec,
    num_classes: int,
    preprocess: Preprocess,
    seed: int,
    calibration: Calibration | None = None,
) -> Network:
    """A network with weights drawn from `seed` alone; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = build_body(name, args, input, num_classes, preprocess)
    return Network(body, input, preprocess, calibration)


def inference_batch_size(device: torch.device) -> int:
    """Inputs per forward pass without gradients. On a CPU small batches stay in cache: a pass over 1,024 images at once
    took three times as long per image as over 128, most of it page faults of fresh activations (docs/results.md)."""
    return 1024 if device.type == "cuda" else 128


def _output(value: Tensor | Output, mask: Tensor | None, num_positions: int) -> Output:
    """A body's value with the mask of its positions, if it has positions and says nothing of them itself; zeros where
    the batch was cut.
    """
    if isinstance(value, Output):
        return value
    if mask is None or value.ndim != 3 or value.shape[:2] != mask.shape:
        return Output(value)
    missing = num_positions - mask.shape[1]
    return Output(F.pad(value, (0, 0, 0, missing)), F.pad(mask, (0, missing))) if missing else Output(value, mask)


def _longest(mask: Tensor, grain: int) -> int:
    """Positions up to the last that counts in any row, rounded up."""
    reached = int(mask.any(0).sum())  # what counts stands in front, so this many positions are reached
    return min(mask.shape[1], grain * max(1, math.ceil(reached / grain)))


def _has_values(raw: Tensor) -> bool:
    """Whether lengths can be looked at: not on the meta device, nor where a graph for all lengths is recorded."""
    return not (raw.is_meta or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export())
