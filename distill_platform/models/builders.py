"""Name -> builder. A builder is a function of (input shape, number of classes, its own keyword arguments).

The shape is of one preprocessed input. A builder that names `kind` or `num_ids` among its keyword arguments is told
the kind of input (`InputSpec.kind`) and how many ids there are to embed; a body that embeds ids must name `num_ids`
(with a default, if it takes real values as well), and one for inputs with padding takes `(values, mask)`.

To add a model: one file with the function, one line in MODELS. A user's own needs neither: the name
`import:package.module:function` calls that function the same way. Models of other libraries go by `hf:`, `timm:` and
`torchvision:` and the library's own name for them.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from distill_platform.data.schema import InputSpec, Schema
from distill_platform.errors import ModelError
from distill_platform.fingerprint import sha256_file
from distill_platform.models import hf_preprocess, huggingface, vision
from distill_platform.models.cnn import cnn
from distill_platform.models.conv1d import conv1d
from distill_platform.models.mlp import mlp
from distill_platform.models.ngrams import ngrams
from distill_platform.models.preprocess import Ids, LogMel, Preprocess, Standardize
from distill_platform.models.reference import Reference
from distill_platform.models.resnet import resnet
from distill_platform.models.transformer import transformer
from distill_platform.models.vit import vit

Builder = Callable[..., nn.Module]


class Architecture(NamedTuple):
    """A builder, and the kinds of inputs that it takes."""

    build: Builder
    kinds: tuple[str, ...]


MODELS: dict[str, Architecture] = {
    "mlp": Architecture(mlp, ("image", "features")),
    "cnn": Architecture(cnn, ("image",)),
    "resnet": Architecture(resnet, ("image",)),
    "vit": Architecture(vit, ("image",)),
    "ngrams": Architecture(ngrams, ("text",)),
    "transformer": Architecture(transformer, ("text", "tokens")),
    "conv1d": Architecture(conv1d, ("audio",)),
}


class Library(NamedTuple):
    """Another library's models.

    build:      (name, input shape, number of classes, keyword arguments) -> body
    preprocess: (name, arguments, schema) -> what its models apply
    saved_args: (arguments, body) -> arguments that build the body again, from nothing but themselves
    """

    build: Builder
    preprocess: Callable[[str, Mapping[str, Any], Schema], Preprocess]
    saved_args: Callable[[Mapping[str, Any], nn.Module], dict[str, Any]]
    kinds: tuple[str, ...]


LIBRARIES: dict[str, Library] = {
    "hf": Library(
        huggingface.huggingface, hf_preprocess.preprocess, huggingface.saved_args, tuple(huggingface.AUTO_CLASSES)
    ),
    "timm": Library(vision.timm_model, vision.timm_preprocess, vision.saved_args, ("image",)),
    "torchvision": Library(vision.torchvision_model, vision.torchvision_preprocess, vision.saved_args, ("image",)),
}

TOLD = ("kind", "num_ids")
"""Keyword arguments that a builder is given by the platform, if it names them, and never by the spec."""


def find_builder(name: str) -> Builder:
    """The builder of a name, of a library's `hf:…`, or of `import:package.module:function`. Raises ModelError."""
    if (library := find_library(name)) is not None:
        return partial(library.build, name)
    if not name.startswith("import:"):
        if name not in MODELS:
            close = difflib.get_close_matches(name, MODELS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            known = ", ".join([*MODELS, *(f"{each}:NAME" for each in LIBRARIES), "import:package.module:function"])
            raise ModelError(f"no model is called {name!r}; {hint}known: {known}")
        return MODELS[name].build
    module_name, _, function = name.removeprefix("import:").partition(":")
    try:
        builder = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"{name}: {error}; wanted import:package.module:function, importable from here") from error
    return builder  # type: ignore[no-any-return]


def find_library(name: str) -> Library | None:
    """The library of `hf:…`, `timm:…` and `torchvision:…`; None for other names."""
    prefix, colon, _ = name.partition(":")
    return LIBRARIES.get(prefix) if colon else None


def model_source(name: str) -> str | None:
    """sha256 of what lies behind a name and may change: the source file of `import:`, configuration and weights of an
    `hf:` folder. So editing it makes a new key. None for our own, and for names that stand for one thing.
    """
    if name.startswith("hf:"):
        return Reference.of(name).source
    if not name.startswith("import:"):
        return None
    find_builder(name)
    found = importlib.util.find_spec(name.removeprefix("import:").partition(":")[0])
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise ModelError(f"{name}: its module has no source file to take a fingerprint of")
    return sha256_file(Path(found.origin))


def preprocess_for(name: str, args: Mapping[str, Any], schema: Schema) -> Preprocess:
    """What a model of this name and arguments applies to this data, where it is trained here.

    Raises ModelError for a pretrained model whose classes or vocabulary are not those of the data.
    """
    if (library := find_library(name)) is not None:
        _check_kind(name, schema.input.kind)
        return library.preprocess(name, args, schema)
    kind = schema.input.kind
    if kind == "text":
        return Ids(256)
    if kind == "tokens":
        return Ids(len(schema.class_names) + 1)
    return LogMel() if kind == "audio" else Standardize.of(schema)


def saved_args(name: str, args: Mapping[str, Any], body: nn.Module) -> dict[str, Any]:
    """The arguments that a model folder keeps: with them, `name` builds the body again wherever it is read."""
    library = find_library(name)
    return dict(args) if library is None else library.saved_args(args, body)


def check_arguments(name: str, args: Mapping[str, Any]) -> None:
    """Raises ModelError, with close matches, for arguments that the builder does not take."""
    parameters = [each for each in _parameters(name) if each.name not in TOLD]
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return
    allowed = [parameter.name for parameter in parameters]
    for argument in args:
        if argument not in allowed:
            close = difflib.get_close_matches(argument, allowed, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ModelError(
                f"model {name!r} has no argument {argument!r}; {hint}it takes: {', '.join(allowed) or 'none'}"
            )


def build_body(
    name: str, args: Mapping[str, Any], input: InputSpec, num_classes: int, preprocess: Preprocess
) -> nn.Module:
    """The module of a name: preprocessed inputs `[B, *shape]` -> logits `[B, C]`, `[B, T, C]`, or named outputs.

    Raises ModelError for an unknown name or argument, for arguments that the builder refuses, and for a model that does
    not take this kind of input.
    """
    check_arguments(name, args)
    _check_kind(name, input.kind)
    told = {"kind": input.kind, "num_ids": preprocess.num_ids}
    named = {parameter.name: parameter.default for parameter in _parameters(name)}
    takes_reals = named.get("num_ids", 0) is not inspect.Parameter.empty
    if "num_ids" not in named if preprocess.num_ids else not takes_reals:
        takes, given = ("ids", "real values") if "num_ids" in named else ("real values", "ids")
        raise ModelError(f"model {name!r} takes {takes}, and {input.kind} inputs come as {given}; name another model")
    shape = preprocess.shape(input)
    try:
        body = find_builder(name)(shape, num_classes, **args, **{key: told[key] for key in TOLD if key in named})
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"model {name!r} with {dict(args)} for inputs {list(shape)}: {error}") from error
    if not isinstance(body, nn.Module):
        raise ModelError(f"model {name!r} gave a {type(body).__name__}, wanted a torch.nn.Module")
    return body


def check_body(
    name: str, args: Mapping[str, Any], input: InputSpec, num_classes: int, preprocess: Preprocess, per_token: bool
) -> None:
    """Build a body and call it on the meta device, where nothing is computed. Raises ModelError if either fails, or if
    its logits are not `[B, C]`, or `[B, T, C]` of a task whose labels are of single tokens.
    """
    shape = preprocess.shape(input)
    with torch.device("meta"):
        body = build_body(name, args, input, num_classes, preprocess).eval()
        values = torch.zeros(2, *shape, dtype=torch.int64 if preprocess.num_ids else torch.float32)
        given = (values,) if input.padding is None else (values, torch.ones(2, shape[-1], dtype=torch.bool))
        try:
            outputs = body(*given)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ModelError(f"model {name!r} cannot take {input.kind} inputs {list(shape)}: {error}") from error
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs
    wanted = [2, *shape[-1:], num_classes] if per_token else [2, num_classes]
    if list(logits.shape) != wanted:
        raise ModelError(f"model {name!r} gives logits {list(logits.shape)} for 2 inputs, wanted {wanted}")


def _check_kind(name: str, kind: str) -> None:
    """Raises ModelError, naming those that do, if a model does not take this kind of input."""
    takes = MODELS[name].kinds if name in MODELS else getattr(find_library(name), "kinds", None)
    if takes is None or kind in takes:
        return
    fitting = [each for each, known in MODELS.items() if kind in known.kinds]
    fitting += [f"{prefix}:NAME" for prefix, library in LIBRARIES.items() if kind in library.kinds]
    raise ModelError(f"{name} takes {', '.join(takes)} inputs, the data has {kind} inputs; use {', '.join(fitting)}")


def _parameters(name: str) -> list[inspect.Parameter]:
    """A builder's parameters behind the input shape and the number of classes."""
    return list(inspect.signature(find_builder(name)).parameters.values())[2:]
