"""Image models of the libraries timm and torchvision, by their own names."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from distill_platform.data.schema import Schema
from distill_platform.errors import ModelError
from distill_platform.models.optional import optional_library
from distill_platform.models.prepared import Preprocess
from distill_platform.models.preprocess import Standardize

log = logging.getLogger(__name__)


def timm_model(
    name: str, input_shape: tuple[int, ...], num_classes: int, *, pretrained: bool = False, **options: Any
) -> nn.Module:
    """`timm:NAME`, with `options` for its constructor (such as img_size of transformers): `[B, channels, H, W]` ->
    `[B, C]`. Pretrained weights are those that timm's own table names; a grey image's first layer sums over colours.
    """
    _check_images(name, input_shape)
    bare = _bare(name)
    with optional_library(name, "vision"):
        import timm
    if not timm.is_model(bare):
        close = ", ".join(timm.list_models(f"*{bare.partition('.')[0][:6]}*")[:5]) or "see timm.list_models()"
        raise ModelError(f"{name}: timm has no model of this name; close: {close}")
    model = timm.create_model(
        bare, pretrained=pretrained and _computes(), num_classes=num_classes, in_chans=input_shape[0], **options
    )
    return cast(nn.Module, model)


def torchvision_model(
    name: str, input_shape: tuple[int, ...], num_classes: int, *, pretrained: bool = False, **options: Any
) -> nn.Module:
    """`torchvision:NAME` of its classification models, with `options` for its constructor: `[B, channels, H, W]` ->
    `[B, C]`; a grey image is shown as three equal channels. Pretrained weights are torchvision's default ones, checked
    by their hash and read without running anything in them; the output layer is new where it has other classes.
    """
    _check_images(name, input_shape)
    bare = _bare(name)
    with optional_library(name, "vision"):
        import torchvision
    if bare not in (known := torchvision.models.list_models(module=torchvision.models)):
        close = ", ".join(each for each in known if each[:4] == bare[:4]) or ", ".join(known[:5])
        raise ModelError(f"{name}: torchvision classifies images by no model of this name; close: {close}")
    model = torchvision.models.get_model(bare, weights=None, num_classes=num_classes, **options)
    if pretrained and _computes():
        weights = torchvision.models.get_model_weights(bare).DEFAULT
        _load_but_head(name, model, weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    model.register_forward_pre_hook(_as_colours)
    model.register_forward_hook(_logits_alone)
    return cast(nn.Module, model)


def saved_args(args: Mapping[str, Any], body: nn.Module) -> dict[str, Any]:
    """Arguments that build the same body without its pretrained weights."""
    return {**args, "pretrained": False}


def timm_preprocess(name: str, args: Mapping[str, Any], schema: Schema) -> Preprocess:
    """What pretrained weights were trained with; else the training split's statistics."""
    if not args.get("pretrained"):
        return Standardize.of(schema)
    with optional_library(name, "vision"):
        import timm
    config = timm.get_pretrained_cfg(_bare(name))
    if config is None:
        raise ModelError(f"{name}: timm has no pretrained weights of this name; set pretrained: false")
    return Standardize.of_pixels(config.mean, config.std, schema.input)


def torchvision_preprocess(name: str, args: Mapping[str, Any], schema: Schema) -> Preprocess:
    """What pretrained weights were trained with; else the training split's statistics."""
    if not args.get("pretrained"):
        return Standardize.of(schema)
    with optional_library(name, "vision"):
        import torchvision
    transforms = torchvision.models.get_model_weights(_bare(name)).DEFAULT.transforms()
    return Standardize.of_pixels(transforms.mean, transforms.std, schema.input)


def _bare(name: str) -> str:
    bare = name.partition(":")[2]
    if ":" in bare or "/" in bare:
        raise ModelError(f"{name}: wanted a name of the library's own table; what the hub has is not pinned by it")
    return bare


def _check_images(name: str, shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ModelError(f"{name} takes images of 1 or 3 channels, got inputs of shape {list(shape)}")


def _computes() -> bool:
    """Whether weights matter: on the meta device a model is only looked at."""
    return torch.get_default_device().type != "meta"


def _load_but_head(name: str, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    own = model.state_dict()
    fitting = {key: value for key, value in weights.items() if key in own and own[key].shape == value.shape}
    new = sorted(own.keys() - fitting.keys())
    model.load_state_dict(fitting, strict=False)
    if new:
        log.info("%s: drawn new, as the pretrained weights hold none for these classes: %s", name, ", ".join(new))


def _as_colours(model: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (given[0].expand(-1, 3, -1, -1), *given[1:])


def _logits_alone(model: nn.Module, given: tuple[Tensor, ...], output: Any) -> Tensor:
    """Of the models that give auxiliary logits too while they are trained."""
    return output if isinstance(output, Tensor) else cast(Tensor, output[0])
