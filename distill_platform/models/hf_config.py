"""The configuration of a transformers model, fitted to the data or checked against it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from distill_platform.errors import ModelError
from distill_platform.models.optional import optional_library
from distill_platform.models.reference import Reference

NOT_KEPT = ("architectures", "transformers_version", "_name_or_path", "auto_map", "dtype")
"""Fields that say where a model came from; `auto_map`, which would name code of its repository to run, among them."""


def make_config(settings: Mapping[str, Any]) -> Any:
    """transformers' own object, of the fields of a config.json. Raises ModelError for what it does not know."""
    with optional_library(f"hf: model of type {settings['model_type']}", "hf"):
        from transformers import AutoConfig
    fields = {key: value for key, value in settings.items() if key not in ("model_type", *NOT_KEPT)}
    try:
        return AutoConfig.for_model(settings["model_type"], **fields)
    except ValueError as error:
        raise ModelError(f"transformers cannot make a configuration of {settings['model_type']!r}: {error}") from error


def known_fields(name: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Raises ModelError, with close names, for a field that the model's configuration does not have."""
    config = make_config(Reference.of(name).config()) if given else None
    for field in given:
        if not hasattr(config, field):
            close = difflib.get_close_matches(field, config.to_dict(), n=3)  # type: ignore[union-attr]
            hint = f"did you mean {' or '.join(close)}?" if close else "see its config.json"
            raise ModelError(f"{name}: config has no field {field!r}; {hint}")
    return given


def fitted_config(
    name: str,
    stored: Mapping[str, Any],
    kind: str,
    shape: tuple[int, ...],
    num_classes: int,
    num_ids: int,
    pretrained: bool,
) -> dict[str, Any]:
    """The configuration, fitted to the data where weights are drawn new, and checked against it where they are not.

    Raises ModelError for a pretrained model of another size.
    """
    config = make_config(stored)
    sizes: dict[str, Any] = {}
    if kind == "image":
        sizes = {"image_size": shape[-1], "num_channels": shape[0]}
        if pretrained:
            sizes.pop("num_channels")  # a grey image is shown to a model of colours three times
    else:
        sizes["vocab_size"] = num_classes if kind == "tokens" else max(num_ids, config.vocab_size)
        sizes["max_position_embeddings"] = max(shape[0], getattr(config, "max_position_embeddings", 0))
    for field, value in sizes.items():
        if (had := getattr(config, field, None)) is None or had == value:
            continue
        if pretrained and not (field == "vocab_size" and had >= value):
            raise ModelError(f"{name} was trained with {field} {had}, the data wants {value}; {_ADVICE[field]}")
        if not pretrained:
            setattr(config, field, value)
    if kind != "tokens":
        if len(config.id2label) != num_classes:
            config.num_labels = num_classes
        if kind == "text" and config.pad_token_id is None:
            config.pad_token_id = 0
    for field in ("pad_token_id", "bos_token_id", "eos_token_id"):
        ids = getattr(config, field, None)
        if kind != "image" and not pretrained and isinstance(ids, int) and ids >= config.vocab_size:
            setattr(config, field, None)
    return dict(config.to_dict())


_ADVICE = {
    "image_size": "set data.image_size to the model's",
    "vocab_size": "prepare the data with the model's own tokenizer (data.tokenizer)",
    "max_position_embeddings": "shorten data.length, or the model's max_tokens",
}
