"""Name -> builder. A builder is a function of (input shape, number of classes, its own keyword arguments).

To add a model: one file with the function, one line in MODELS. A user's own needs neither: the name
`import:package.module:function` calls that function the same way.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distill_platform.errors import ModelError
from distill_platform.fingerprint import sha256_file
from distill_platform.models.cnn import cnn
from distill_platform.models.mlp import mlp
from distill_platform.models.resnet import resnet

Builder = Callable[..., nn.Module]

MODELS: dict[str, Builder] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet": resnet,
}


def find_builder(name: str) -> Builder:
    """The builder of a name, or of `import:package.module:function`. Raises ModelError."""
    if not name.startswith("import:"):
        if name not in MODELS:
            close = difflib.get_close_matches(name, MODELS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            known = ", ".join([*MODELS, "import:package.module:function"])
            raise ModelError(f"no model is called {name!r}; {hint}known: {known}")
        return MODELS[name]
    module_name, _, function = name.removeprefix("import:").partition(":")
    try:
        builder = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"{name}: {error}; wanted import:package.module:function, importable from here") from error
    return builder  # type: ignore[no-any-return]


def model_source(name: str) -> str | None:
    """sha256 of the source file behind an `import:` name, so that editing it makes a new key; None for our own."""
    if not name.startswith("import:"):
        return None
    find_builder(name)
    found = importlib.util.find_spec(name.removeprefix("import:").partition(":")[0])
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise ModelError(f"{name}: its module has no source file to take a fingerprint of")
    return sha256_file(Path(found.origin))


def check_arguments(name: str, args: Mapping[str, Any]) -> None:
    """Raises ModelError, with close matches, for arguments that the builder does not take."""
    parameters = list(inspect.signature(find_builder(name)).parameters.values())[2:]
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


def build_body(name: str, args: Mapping[str, Any], input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """The module of a name: preprocessed inputs `[B, *input_shape]` -> logits `[B, C]` or named outputs.

    Raises ModelError for an unknown name or argument, and for arguments that the builder refuses.
    """
    check_arguments(name, args)
    try:
        body = find_builder(name)(input_shape, num_classes, **args)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"model {name!r} with {dict(args)} for inputs {list(input_shape)}: {error}") from error
    if not isinstance(body, nn.Module):
        raise ModelError(f"model {name!r} gave a {type(body).__name__}, wanted a torch.nn.Module")
    return body


def check_body(name: str, args: Mapping[str, Any], input_shape: tuple[int, ...], num_classes: int) -> None:
    """Build a body and call it on the meta device, where nothing is computed. Raises ModelError if either fails, or if
    its logits are not `[B, C]`.
    """
    with torch.device("meta"):
        body = build_body(name, args, input_shape, num_classes).eval()
        try:
            outputs = body(torch.zeros(2, *input_shape))
        except (RuntimeError, TypeError, ValueError) as error:
            raise ModelError(f"model {name!r} cannot take inputs {list(input_shape)}: {error}") from error
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs
    if list(logits.shape) != [2, num_classes]:
        raise ModelError(f"model {name!r} gives logits {list(logits.shape)} for 2 inputs, wanted [2, {num_classes}]")
