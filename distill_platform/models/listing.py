"""The layers that a model has, by the names that everything else takes."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distill_platform.models.capture import ASKED
from distill_platform.models.saved import SavedModel


@dataclass(frozen=True)
class Layer:
    """A layer of a body.

    shape:          what it gives for one input; None if it is not called, or more than once, or gives no tensor
    attention:      whether `<name>:attention` is there as well
    num_parameters: its weights, with those of the layers within
    """

    name: str
    type: str
    shape: tuple[int, ...] | None
    attention: bool
    num_parameters: int


def list_layers(model: SavedModel) -> list[Layer]:
    """The layers of a model in the order of its body, without memory or arithmetic. Raises ModelError as `build`."""
    with torch.device("meta"):
        network = model.build().eval()
    given: dict[str, list[Any]] = {}
    modules = {name: module for name, module in network.body.named_modules() if name}
    for name, module in modules.items():
        given[name] = []
        module.register_forward_hook(lambda _, taken, output, name=name: given[name].append(output))
    with torch.device("meta"), torch.inference_mode():
        network(torch.zeros(2, *model.input.shape))
    return [
        Layer(
            name,
            type(module).__name__,
            _shape(given[name]),
            _has_attention(module, given[name]),
            sum(parameter.numel() for parameter in module.parameters()),
        )
        for name, module in modules.items()
    ]


def _shape(outputs: list[Any]) -> tuple[int, ...] | None:
    output = outputs[0] if len(outputs) == 1 else None
    if isinstance(output, tuple | list) and output:
        output = output[0]
    return tuple(output.shape[1:]) if isinstance(output, Tensor) else None


def _has_attention(module: nn.Module, outputs: list[Any]) -> bool:
    output = outputs[0] if len(outputs) == 1 else None
    gives = (
        isinstance(output, tuple | list) and len(output) > 1 and isinstance(output[1], Tensor) and output[1].ndim == 4
    )
    return gives or "need_weights" in ASKED.keys() & inspect.signature(module.forward).parameters.keys()
