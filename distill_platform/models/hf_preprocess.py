"""What a transformers model applies to the data, and whether its classes and its vocabulary are those of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distill_platform.data.schema import Schema
from distill_platform.data.tokenizers import open_tokenizer
from distill_platform.errors import ModelError
from distill_platform.models.hf_config import make_config
from distill_platform.models.prepared import Preprocess
from distill_platform.models.preprocess import Ids, Standardize
from distill_platform.models.reference import Reference
from distill_platform.models.tokenized import TOKENIZER_FILE, Tokenized, opened

MAX_TOKENS = 512
UNNAMED = "LABEL_"
"""How transformers calls classes that nobody named."""


def preprocess(name: str, args: Mapping[str, Any], schema: Schema) -> Preprocess:
    """What a model of the library applies to this data: its own tokenizer, or its own mean and standard deviation of
    pixels where it is pretrained. Raises ModelError if its classes or its vocabulary are not those of the data.
    """
    reference, kind, pretrained = Reference.of(name), schema.input.kind, args.get("pretrained", True)
    config = {**reference.config(), **(args.get("config") or {})}
    if pretrained and kind in ("text", "image") and not args.get("new_head"):
        check_classes(name, config, schema.class_names, args.get("class_order"))
    if kind == "tokens":
        if pretrained and (found := open_tokenizer(name).vocabulary) != schema.class_names:
            raise ModelError(_other_vocabulary(name, found, schema.class_names))
        return Ids(len(schema.class_names) + 1)
    if kind == "text":
        return _tokenized(reference, config, pretrained, args.get("max_tokens", MAX_TOKENS))
    processor = reference.json("preprocessor_config.json") if pretrained else None
    if processor is None or kind != "image" or "image_mean" not in processor:
        return Standardize.of(schema)
    return Standardize.of_pixels(processor["image_mean"], processor["image_std"], schema.input)


def check_classes(
    name: str, config: Mapping[str, Any], wanted: Sequence[str], class_order: Sequence[int] | None = None
) -> None:
    """Raises ModelError, offering the mapping, if a pretrained output layer's classes are not those of the data.

    One for another number of classes says nothing of them, and is drawn new.
    """
    labels = {int(index): str(label) for index, label in (config.get("id2label") or {}).items()}
    found = [labels[index] for index in sorted(labels)] or [f"{UNNAMED}{index}" for index in range(2)]
    if class_order is not None:
        if sorted(class_order) != list(range(len(found))):
            raise ModelError(f"{name}: class_order is {list(class_order)}, wanted each of 0 to {len(found) - 1} once")
        found = [found[index] for index in class_order]
    if len(found) != len(wanted) or found == list(wanted):
        return
    if sorted(found) == sorted(wanted):
        order = [found.index(label) for label in wanted]
        raise ModelError(
            f"{name} has the data's classes in another order: {some(found)}, the data {some(wanted)}; add "
            f"class_order: {order}, or new_head: true for an output layer drawn new"
        )
    why = "no names" if all(label.startswith(UNNAMED) for label in found) else f"other names, {some(found)}"
    raise ModelError(
        f"{name} has as many classes as the data, with {why}, where the data has {some(wanted)}; add new_head: true "
        "for an output layer drawn new, or name the model's classes in config: {id2label: {0: …}}"
    )


def _tokenized(reference: Reference, config: Mapping[str, Any], pretrained: bool, max_tokens: int) -> Preprocess:
    definition = reference.file(TOKENIZER_FILE)
    if definition is None:
        if pretrained:
            raise ModelError(f"{reference.name} holds no {TOKENIZER_FILE}; save its fast tokenizer beside the weights")
        return Ids(256)
    limits = [max_tokens, (reference.json("tokenizer_config.json") or {}).get("model_max_length")]
    limits.append(make_config(config).to_dict().get("max_position_embeddings"))
    tokenizer = opened(definition)
    padding_id = make_config(config).pad_token_id
    return Tokenized(
        definition,
        num_ids=1 + max(tokenizer.get_vocab(with_added_tokens=True).values()),
        max_tokens=int(min(limit for limit in limits if limit)),
        padding_id=padding_id if isinstance(padding_id, int) else 0,
    )


def some(names: Sequence[str], most: int = 6) -> str:
    """The first few names, and how many there are."""
    return ", ".join(map(str, names[:most])) + (f", … ({len(names)})" if len(names) > most else "")


def _other_vocabulary(name: str, found: Sequence[str], wanted: Sequence[str]) -> str:
    first = next((at for at, (one, other) in enumerate(zip(found, wanted, strict=False)) if one != other), None)
    where = "" if first is None else f", token {first} is {found[first]!r} and {wanted[first]!r}"
    return (
        f"{name} has a vocabulary of {len(found)} tokens, the data one of {len(wanted)}{where}; prepare the data with "
        f"data.tokenizer: {name}"
    )
