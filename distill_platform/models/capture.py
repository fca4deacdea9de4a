"""What the inside of a network says: the outputs of named layers, attention maps, and the input of the output layer.

Forward hooks take the values in the very pass that gives the logits. Layers are named as in the body that the builder
made (`dict(body.named_modules())`): `stages.2`, `blocks.11.attn`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_platform.errors import ModelError
from distill_platform.models.builders import build_body
from distill_platform.models.network import Network
from distill_platform.models.saved import SavedModel

MODES = ("pooled", "whole")
ATTENTION = ":attention"
"""After a layer's name: its attention weights, the second of the values that it returns."""
HEAD_TOLERANCE = 1e-4
"""Largest difference between logits and hidden @ weight.T + bias, relative to the largest logit: float32 rounding in
another order of sums stays far below it, and any operation between that layer and the logits does not."""


def capture(network: Network, layers: Mapping[str, str], output_layer: str | None = None) -> Capture:
    """Listen to layers, by name or pattern -> "pooled" or "whole", and to the input of the layer `output_layer`.

    `*` and `?` match within one part of a dotted name: `stages.*` are the children of `stages`.

    Raises ModelError for a name or pattern that fits no layer, with close ones and the list of layers.
    """
    return Capture(network, resolve_layers(network, layers), output_layer)


class Capture:
    """Raw inputs `[B, *shape]` -> what the network says of them, by name, in float32:

    logits         `[B, …, C]`
    hidden         `[B, …, H]`, what goes into the output layer, if one was named
    layer.<name>   pooled: `[B, channels]` of images `[B, channels, H, W]` and sequences `[B, T, channels]`, the mean
                   over all other axes; attention `[B, T, T]`, the mean over heads. whole: as the layer gives it,
                   attention `[B, heads, T, T]`.

    Raises ModelError, when called, for a layer that is not reached or more than once, whose first axis is not the
    batch's, or that gives no tensor (for `:attention`: no weights. Layers that compute attention in one fused step
    have none; torch.nn.MultiheadAttention is asked for them, others must return them as second value).
    """

    def __init__(self, network: Network, layers: Mapping[str, str], output_layer: str | None = None) -> None:
        self.layers = dict(layers)
        self._network = network
        self._seen: dict[str, list[Any]] = {}
        modules = dict(network.body.named_modules())
        for name in {layer.removesuffix(ATTENTION) for layer in self.layers}:
            wants_weights = f"{name}{ATTENTION}" in self.layers
            self._listen(name, modules[name], wants_weights)
        self._hidden: list[Tensor] = []
        if output_layer is not None:
            modules[output_layer].register_forward_hook(lambda _, given, output: self._hidden.append(given[0]))

    def __call__(self, inputs: Tensor) -> dict[str, Tensor]:
        for outputs in (self._hidden, *self._seen.values()):
            outputs.clear()
        found = {"logits": self._network(inputs)["logits"].values.float()}
        if self._hidden:
            found["hidden"] = self._hidden[-1].float()
        for layer, mode in self.layers.items():
            values = self._values(layer, len(inputs))
            found[f"layer.{layer}"] = _pooled(values, layer.endswith(ATTENTION)) if mode == "pooled" else values
        return found

    def _listen(self, name: str, module: nn.Module, wants_weights: bool) -> None:
        self._seen[name] = []
        module.register_forward_hook(lambda _, given, output: self._seen[name].append(_copied(output)))
        if wants_weights and isinstance(module, nn.MultiheadAttention):
            module.register_forward_pre_hook(_ask_for_weights, with_kwargs=True)

    def _values(self, layer: str, batch_size: int) -> Tensor:
        name = layer.removesuffix(ATTENTION)
        if len(outputs := self._seen[name]) != 1:
            raise ModelError(f"layer {name!r} is called {len(outputs)} times in one pass, wanted once; name another")
        output = outputs[0]
        if layer.endswith(ATTENTION):
            output = output[1] if isinstance(output, tuple | list) and len(output) > 1 else None
        elif isinstance(output, tuple | list):
            output = output[0]
        if not isinstance(output, Tensor):
            what = "attention weights as the second of its values" if layer.endswith(ATTENTION) else "a tensor"
            raise ModelError(f"layer {layer!r} gives {type(outputs[0]).__name__}, wanted {what}; name another layer")
        if output.ndim < 2 or len(output) != batch_size:
            raise ModelError(
                f"layer {layer!r} gives {list(output.shape)} for {batch_size} inputs, wanted the batch as first axis"
            )
        return output.float()


def layer_shapes(model: SavedModel, layers: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    """What is kept of one input, by layer, of a model that is built and called without memory or arithmetic.

    Raises ModelError as `capture` and its call do.
    """
    with torch.device("meta"):
        body = build_body(model.name, model.args, model.input, len(model.class_names), model.preprocess)
        network = Network(body, model.input, model.preprocess).eval()
        found = capture(network, layers)(torch.zeros(2, *model.input.shape))
    return {name.removeprefix("layer."): tuple(found[name].shape[1:]) for name in found if name.startswith("layer.")}


def resolve_layers(network: Network, patterns: Mapping[str, str]) -> dict[str, str]:
    """Names and patterns -> the layers they stand for, in the order of the body. Raises ModelError as `capture`."""
    names = [name for name, _ in network.body.named_modules() if name]
    found: dict[str, str] = {}
    for pattern, mode in patterns.items():
        if mode not in MODES:
            raise ModelError(f"cache.layers, {pattern}: got {mode!r}, wanted {' or '.join(MODES)}")
        suffix = ATTENTION if pattern.endswith(ATTENTION) else ""
        matching = [name for name in names if _matches(name, pattern.removesuffix(ATTENTION))]
        if not matching:
            raise ModelError(_unknown(pattern.removesuffix(ATTENTION), names))
        for name in matching:
            if found.setdefault(name + suffix, mode) != mode:
                raise ModelError(f"cache.layers names {name + suffix!r} twice, as pooled and as whole; wanted one")
    order = {name: position for position, name in enumerate(names)}
    return dict(sorted(found.items(), key=lambda entry: (order[entry[0].removesuffix(ATTENTION)], entry[0])))


@dataclass(frozen=True)
class OutputLayer:
    """The linear layer whose output is the logits: logits = hidden @ weight.T + bias.

    weight: `[C, H]` float32. bias: `[C]` float32, zeros if the layer has none.
    """

    name: str
    weight: Tensor
    bias: Tensor


@torch.inference_mode()
def output_layer(network: Network, sample: Tensor) -> OutputLayer:
    """The output layer of a network, found and checked by what it says of raw inputs `[B, *shape]`.

    Raises ModelError if the logits are no linear layer's output: codec `head` cannot be used with such a teacher.
    """
    linears = {name: module for name, module in network.body.named_modules() if isinstance(module, nn.Linear)}
    calls: list[tuple[str, Tensor, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda _, given, output, name=name: calls.append((name, given[0], output)))
        for name, module in linears.items()
    ]
    try:
        logits = network(sample)["logits"].values
    finally:
        for hook in hooks:
            hook.remove()
    for name, hidden, output in reversed(calls):
        weight, bias = _plain(linears[name])
        if output.shape == logits.shape and _close(F.linear(hidden, weight, bias), logits):
            return OutputLayer(name, weight.detach().float().cpu(), bias.detach().float().cpu())
    raise ModelError(
        "this teacher's logits are not the output of a linear layer (they pass through another operation after it, or "
        "the layer has another type), so codec head cannot rebuild them; set cache.codec to another, such as dense"
    )


def _copied(output: Any) -> Any:
    """Of what a layer gives, because the next one may work in place (ReLU does in most residual networks)."""
    if isinstance(output, tuple | list):
        return tuple(map(_copied, output))
    return output.clone() if isinstance(output, Tensor) else output


def _ask_for_weights(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return given, {**named, "need_weights": True, "average_attn_weights": False}


def _pooled(values: Tensor, is_attention: bool) -> Tensor:
    if is_attention:
        return values.mean(1) if values.ndim == 4 else values
    channels = values.ndim - 1 if values.ndim == 3 else 1
    others = [axis for axis in range(1, values.ndim) if axis != channels]
    return values.mean(others) if others else values


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _unknown(pattern: str, names: Iterable[str]) -> str:
    known = list(names)
    close = difflib.get_close_matches(pattern, known, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"cache.layers: no layer of the teacher is called {pattern!r}; {hint}it has: {', '.join(known)}"


def _plain(module: nn.Linear) -> tuple[Tensor, Tensor]:
    bias = module.bias if module.bias is not None else module.weight.new_zeros(module.out_features)
    return module.weight, bias


def _close(got: Tensor, wanted: Tensor) -> bool:
    return float((got - wanted).abs().max()) <= HEAD_TOLERANCE * float(wanted.abs().max())
