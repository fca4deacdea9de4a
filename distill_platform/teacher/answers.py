"""What a teacher says of raw inputs: what a cache keeps, in the number format that it is computed in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from distill_platform.artifact import Artifact
from distill_platform.cache.codecs import CODECS
from distill_platform.cache.encoding import Encoding
from distill_platform.data.examples import open_split
from distill_platform.models import load_network
from distill_platform.models.capture import OutputLayer, capture, output_layer
from distill_platform.teacher.train import MODEL_FOLDER
from distill_platform.train.optim import PRECISIONS


class Answers:
    """A teacher that is listened to. `sample` `[B, *shape]` are raw inputs to find its output layer with.

    layers: name or pattern -> "pooled" or "whole".

    Raises ModelError for layers that it does not have, and if the codec wants an output layer that it does not have.
    """

    def __init__(self, folder: Path, encoding: Encoding, layers: Mapping[str, str], sample: Tensor) -> None:
        _, self.network = load_network(folder)
        self.output_layer: OutputLayer | None = None
        if CODECS[encoding.codec].source == "hidden":
            self.output_layer = output_layer(self.network, sample)
        self._capture = capture(self.network, layers, self.output_layer.name if self.output_layer else None)
        self.layers = self._capture.layers
        self.device = torch.device("cpu")

    @classmethod
    def of(cls, teacher: Artifact, encoding: Encoding, layers: Mapping[str, str], sample: Tensor) -> Answers:
        """Of a teacher artifact, on the CPU."""
        return cls(teacher.fetch_folder(MODEL_FOLDER), encoding, layers, sample)

    def to(self, device: torch.device) -> Answers:
        """The same, computed on a device; float32 is float32 there, and not TensorFloat-32, which keeps 10 bits."""
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self.network.to(device)
        self.device = device
        return self

    @property
    def constants(self) -> dict[str, Tensor]:
        """What the codec needs once for all rows; empty for most."""
        return {"weight": self.output_layer.weight, "bias": self.output_layer.bias} if self.output_layer else {}

    @torch.inference_mode()
    def __call__(self, inputs: Tensor, precision: str) -> dict[str, Tensor]:
        """Raw inputs `[B, *shape]` -> "logits", "hidden" if the codec keeps it, "layer.<name>" of every layer kept."""
        dtype = PRECISIONS[precision]
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            return self._capture(inputs.to(self.device))


def hidden_size(teacher: Artifact, data: Artifact) -> int:
    """Width of what goes into the teacher's output layer.

    Raises ModelError if its logits are not a linear layer's output.
    """
    _, network = load_network(teacher.fetch_folder(MODEL_FOLDER))
    return output_layer(network, open_split(data, "train").inputs[:2]).weight.shape[1]
