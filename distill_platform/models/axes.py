"""Which axes of a body's weights are the same channels, so that some of them can be left out everywhere at once.

A group is a set of channels, heads or neurons that are kept or left out together. An axis of a weight is made of parts
of groups, one after the other; None is an axis that keeps its size (pixels, ids, classes).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import nn

from distill_platform.errors import ModelError
from distill_platform.models.attention import Block
from distill_platform.models.resnet import ResidualBlock, ResNet
from distill_platform.models.transformer import Transformer
from distill_platform.models.vit import VisionTransformer


class Part(NamedTuple):
    """`num` members of a group, each of `unit` neighbouring entries of the axis (a head has several)."""

    group: str
    num: int
    unit: int = 1


Axis = tuple[Part, ...] | None
Axes = Mapping[str, tuple[Axis, ...]]


def channel_axes(body: nn.Module) -> Axes:
    """The axes of every weight and buffer that is saved, by name. Raises ModelError for a body without such a table."""
    if isinstance(body, ResNet):
        found = _of_resnet(body)
    elif isinstance(body, Transformer | VisionTransformer):
        found = _of_transformer(body)
    elif isinstance(body, nn.Sequential):
        found = _of_chain(body)
    else:
        raise ModelError(
            f"a {type(body).__name__} cannot be narrowed; wanted mlp, cnn, resnet, vit or transformer. Start such a "
            "student from saved weights, or drop whole layers"
        )
    return {name: found.get(name, (None,) * tensor.ndim) for name, tensor in body.state_dict().items()}


def _of_chain(body: nn.Sequential) -> Axes:
    """mlp and cnn: each layer's outputs are the next one's inputs; the last gives classes."""
    weighted = [name for name, module in body.named_children() if isinstance(module, nn.Linear | nn.Conv2d)]
    found: dict[str, tuple[Axis, ...]] = {}
    axis: Axis = None
    for name, module in body.named_children():
        if isinstance(module, nn.Linear | nn.Conv2d):
            before, axis = axis, None if name == weighted[-1] else (Part(name, module.weight.shape[0]),)
            found[f"{name}.weight"] = (axis, before, *(None,) * (module.weight.ndim - 2))
            found[f"{name}.bias"] = (axis,)
        elif isinstance(module, nn.BatchNorm2d):
            found |= _of_norm(name, axis)
    return found


def _of_resnet(body: ResNet) -> Axes:
    """A stage's shortcut gives the channels of the stage before, and zeros behind them: so a stage's channels are those
    of the stage before and new ones, and inside a block each has its own.
    """
    stem, norm = body.stem[0], body.stem[1]
    assert isinstance(stem, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    stream: tuple[Part, ...] = (Part("stem", stem.out_channels),)
    found: dict[str, tuple[Axis, ...]] = {"stem.0.weight": (stream, None, None, None), **_of_norm("stem.1", stream)}
    for stage, blocks in enumerate(body.stages):
        assert isinstance(blocks, nn.Sequential)
        for number, block in enumerate(blocks):
            assert isinstance(block, ResidualBlock)
            name, width = f"stages.{stage}.{number}", block.width
            before = stream
            if block.widen:
                stream = (*stream, Part(f"stages.{stage}.widen", block.widen))
            inner = (Part(f"{name}.inner", width),)
            found[f"{name}.body.0.weight"] = (inner, before, None, None)
            found[f"{name}.body.3.weight"] = (stream, inner, None, None)
            found |= {**_of_norm(f"{name}.body.1", inner), **_of_norm(f"{name}.body.4", stream)}
    found["head.weight"] = (None, stream)
    return found


def _of_transformer(body: Transformer | VisionTransformer) -> Axes:
    width = body.norm.normalized_shape[0]
    stream: Axis = (Part("width", width),)
    found: dict[str, tuple[Axis, ...]] = {
        "embedding.weight": (None, stream),
        "positions": (None, stream),
        "positions.weight": (None, stream),
        "patches.weight": (stream, None, None, None),
        "patches.bias": (stream,),
        "head.weight": (None, stream),
        **_of_norm("norm", stream),
    }
    for number, block in enumerate(body.blocks):
        assert isinstance(block, Block)
        name, attention, neurons = f"blocks.{number}", block.attention, block.mlp[0]
        assert isinstance(neurons, nn.Linear)
        heads = Part(f"{name}.heads", attention.num_heads, attention.head_dim)
        inner: Axis = (Part(f"{name}.neurons", neurons.out_features),)
        found |= {
            f"{name}.attention.in_proj_weight": ((heads,) * 3, stream),
            f"{name}.attention.in_proj_bias": ((heads,) * 3,),
            f"{name}.attention.out_proj.weight": (stream, (heads,)),
            f"{name}.attention.out_proj.bias": (stream,),
            f"{name}.mlp.0.weight": (inner, stream),
            f"{name}.mlp.0.bias": (inner,),
            f"{name}.mlp.2.weight": (stream, inner),
            f"{name}.mlp.2.bias": (stream,),
            **_of_norm(f"{name}.attention_norm", stream),
            **_of_norm(f"{name}.mlp_norm", stream),
        }
    return found


def _of_norm(name: str, axis: Axis) -> dict[str, tuple[Axis, ...]]:
    return {f"{name}.{each}": (axis,) for each in ("weight", "bias", "running_mean", "running_var")}
