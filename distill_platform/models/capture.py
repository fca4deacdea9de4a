"""What the inside of a network says: the outputs of named layers, attention maps, and the input of the output layer.

Forward hooks take the values in the very pass that gives the logits. Layers are named as in the body that the builder
made (`dict(body.named_modules())`): `stages.2`, `blocks.11.attn`.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from distill_platform.data.schema import InputSpec
from distill_platform.errors import ModelError
from distill_platform.models.builders import build_body
from distill_platform.models.network import Network, Outputs
from distill_platform.models.prepared import Prepared
from distill_platform.models.saved import SavedModel

MODES = ("pooled", "whole")
ATTENTION = ":attention"
"""After a layer's name: its attention weights, the second of the values that it returns."""
ASKED = {"need_weights": True, "average_attn_weights": False, "output_attentions": True}
"""What a layer is asked for its attention weights by: those of these keyword arguments that its forward takes."""
HEAD_TOLERANCE = 1e-4
"""Largest difference between logits and hidden @ weight.T + bias, relative to the largest logit: float32 rounding in
another order of sums stays far below it, and any operation between that layer and the logits does not."""


class Answer(NamedTuple):
    """What a network says of a batch: its outputs; its layers by name, in float32; which tokens count, `[B, T]`."""

    outputs: Outputs
    layers: Mapping[str, Tensor]
    mask: Tensor | None = None


def capture(
    network: Network,
    layers: Mapping[str, str],
    output_layer: str | None = None,
    where: str = "cache.layers",
    whose: str = "the teacher",
) -> Capture:
    """Listen to layers, by name or pattern -> "pooled" or "whole", and to the input of the layer `output_layer`.

    `*` and `?` match within one part of a dotted name: `stages.*` are the children of `stages`. `where` and `whose`
    stand in messages.

    Raises ModelError for a name or pattern that fits no layer, with close ones and the list of layers.
    """
    return Capture(network, resolve_layers(network, layers, where, whose), output_layer)


class Capture:
    """Raw inputs `[B, *shape]` -> what the network says of them, by name, in float32:

    logits         `[B, …, C]`
    hidden         `[B, …, H]`, what goes into the output layer, if one was named
    layer.<name>   pooled: `[B, channels]` of images `[B, channels, H, W]` and sequences `[B, T, channels]`, the mean
                   over all other axes, padding left out; attention `[B, T, T]`, the mean over heads. whole: as the
                   layer gives it, attention `[B, heads, T, T]`. Convolutions over padded sequences give
                   `[B, channels, T]`; here they are sequences as all others.

    It listens only while it is called: nothing stays on the network. Gradients flow through what it gives, if they are
    wanted where it is called.

    Raises ModelError, when called, for a layer that is not reached or more than once, whose first axis is not the
    batch's, or that gives no tensor (for `:attention`: no weights. Layers that compute attention in one fused step
    have none; those whose forward takes `need_weights`, such as torch.nn.MultiheadAttention, or `output_attentions` are
    asked for them, others must return them as second value).
    """

    def __init__(self, network: Network, layers: Mapping[str, str], output_layer: str | None = None) -> None:
        self.layers = dict(layers)
        self._network, self._output_layer = network, output_layer
        modules = dict(network.body.named_modules())
        self._modules = {name: modules[name] for name in dict.fromkeys(map(_module_name, self.layers))}
        self._output = modules[output_layer] if output_layer is not None else None

    def __call__(self, inputs: Tensor) -> dict[str, Tensor]:
        hidden: list[Tensor] = []
        listening = []
        if self._output is not None:
            listening = [self._output.register_forward_hook(lambda _, given, output: hidden.append(given[0]))]
        try:
            answer = self.answer(inputs)
        finally:
            for hook in listening:
                hook.remove()
        found = {"logits": answer.outputs["logits"].values.float()}
        if hidden:
            found["hidden"] = hidden[-1].float()
        return found | {f"layer.{name}": values for name, values in answer.layers.items()}

    def answer(self, inputs: Tensor) -> Answer:
        """The outputs as the network gives them, the layers as the class says, and which tokens count."""
        seen: dict[str, list[Any]] = {name: [] for name in self._modules}
        masks: list[Tensor | None] = []
        hooks = [self._network.preprocess.register_forward_hook(lambda _, given, output: masks.append(output.mask))]
        try:
            for name, module in self._modules.items():
                hooks += _listen(module, seen[name], wants_weights=f"{name}{ATTENTION}" in self.layers)
            outputs = self._network(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        (mask,) = masks
        layers = {}
        for layer, mode in self.layers.items():
            name = _module_name(layer)
            values = _values(layer, seen[name], len(inputs))
            if mask is not None and values.ndim == 3 and values.shape[1] != mask.shape[1]:
                values = values.mT if _convolves(self._modules[name]) else values
            layers[layer] = pooled(values, mask, layer.endswith(ATTENTION)) if mode == "pooled" else values
        return Answer(outputs, layers, mask)


def pooled(values: Tensor, mask: Tensor | None = None, is_attention: bool = False) -> Tensor:
    """What "pooled" keeps of a layer's values: `[B, channels]`, of attention the mean over heads `[B, T, T]`.

    mask `[B, T]`: which tokens count, where the values `[B, T, channels]` are of tokens (None: all).
    """
    if is_attention:
        return values.mean(1) if values.ndim == 4 else values
    if mask is not None and values.ndim == 3 and (own := positions_of(values.shape[1], mask)) is not None:
        counted = own[..., None].to(values.dtype)
        return (values * counted).sum(1) / counted.sum(1).clamp(min=1)
    channels = values.ndim - 1 if values.ndim == 3 else 1
    others = [axis for axis in range(1, values.ndim) if axis != channels]
    return values.mean(others) if others else values


def positions_of(num: int, mask: Tensor) -> Tensor | None:
    """Which of a layer's `num` positions count, `[B, num]`, by the mask `[B, T]` of its inputs.

    There are T, or what a stride leaves of them: the first of every so many. None for a number that no stride leaves.
    """
    own = mask[:, :: math.ceil(mask.shape[1] / max(1, num))]
    return own if own.shape[1] == num else None


def layer_shapes(
    model: SavedModel, layers: Mapping[str, str], where: str = "cache.layers", whose: str = "the teacher"
) -> dict[str, tuple[int, ...]]:
    """What is kept of one input, by layer, of a model that is built and called without memory or arithmetic.

    Raises ModelError as `capture` and its call do.
    """
    with torch.device("meta"):
        body = build_body(model.name, model.args, model.input, len(model.class_names), model.preprocess)
        network = Network(body, model.input, model.preprocess).eval()
        network.preprocess = _Blank(model.preprocess.shape(model.input), model.preprocess.num_ids, model.input)
        found = capture(network, layers, None, where, whose).answer(torch.zeros(2, *model.input.shape)).layers
    return {name: tuple(values.shape[1:]) for name, values in found.items()}


class _Blank(nn.Module):
    """In place of preprocessing that may have to read what it is given: values of the right shape and type."""

    def __init__(self, shape: tuple[int, ...], num_ids: int, input: InputSpec) -> None:
        super().__init__()
        self.shape, self.dtype = shape, torch.int64 if num_ids else torch.float32
        self.has_mask = input.padding is not None

    def forward(self, raw: Tensor) -> Prepared:
        mask = torch.ones(len(raw), self.shape[-1], dtype=torch.bool) if self.has_mask else None
        return Prepared(torch.zeros(len(raw), *self.shape, dtype=self.dtype), mask)


def resolve_layers(
    network: Network, patterns: Mapping[str, str], where: str = "cache.layers", whose: str = "the teacher"
) -> dict[str, str]:
    """Names and patterns -> the layers they stand for, in the order of the body.

    A layer that is named both ways is taken whole, which is what pooled can be made of. `where` and `whose` are for the
    message. Raises ModelError as `capture`.
    """
    names = [name for name, _ in network.body.named_modules() if name]
    found: dict[str, str] = {}
    for pattern, mode in patterns.items():
        if mode not in MODES:
            raise ModelError(f"{where}, {pattern}: got {mode!r}, wanted {' or '.join(MODES)}")
        suffix = ATTENTION if pattern.endswith(ATTENTION) else ""
        for name in matching_layers(_module_name(pattern), names, where, whose):
            found[name + suffix] = "whole" if "whole" in (mode, found.get(name + suffix)) else mode
    order = {name: position for position, name in enumerate(names)}
    return dict(sorted(found.items(), key=lambda entry: (order[_module_name(entry[0])], entry[0])))


def matching_layers(pattern: str, names: Iterable[str], where: str, whose: str) -> list[str]:
    """Those of the names that a name or pattern fits, in their order. Raises ModelError, with close ones, for none."""
    known = list(names)
    if found := [name for name in known if _matches(name, pattern)]:
        return found
    close = difflib.get_close_matches(pattern, known, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise ModelError(f"{where}: no layer of {whose} is called {pattern!r}; {hint}it has: {', '.join(known) or 'none'}")


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


def _listen(module: nn.Module, seen: list[Any], wants_weights: bool) -> list[RemovableHandle]:
    hooks = [module.register_forward_hook(lambda _, given, output: seen.append(_copied(output)))]
    taken = inspect.signature(module.forward).parameters
    if wants_weights and (asked := {name: value for name, value in ASKED.items() if name in taken}):
        hooks.append(
            module.register_forward_pre_hook(lambda _, given, named: (given, {**named, **asked}), with_kwargs=True)
        )
    return hooks


def _values(layer: str, outputs: list[Any], batch_size: int) -> Tensor:
    """What a layer gave, if it is rows of the batch."""
    if len(outputs) != 1:
        raise ModelError(
            f"layer {_module_name(layer)!r} is called {len(outputs)} times in one pass, wanted once; name another"
        )
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


def _copied(output: Any) -> Any:
    """Of what a layer gives, because the next one may work in place (ReLU does in most residual networks)."""
    if isinstance(output, tuple | list):
        return tuple(map(_copied, output))
    return output.clone() if isinstance(output, Tensor) else output


def _convolves(module: nn.Module) -> bool:
    return any(isinstance(each, nn.Conv1d) for each in module.modules())


def _module_name(layer: str) -> str:
    return layer.removesuffix(ATTENTION)


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _plain(module: nn.Linear) -> tuple[Tensor, Tensor]:
    bias = module.bias if module.bias is not None else module.weight.new_zeros(module.out_features)
    return module.weight, bias


def _close(got: Tensor, wanted: Tensor) -> bool:
    return float((got - wanted).abs().max()) <= HEAD_TOLERANCE * float(wanted.abs().max())
