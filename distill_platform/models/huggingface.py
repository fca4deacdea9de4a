"""Models of the transformers library: the Auto class of the kind of input, no code of a model's repository, weights of
safetensors alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distill_platform.errors import ModelError
from distill_platform.models.hf_config import NOT_KEPT, fitted_config, known_fields, make_config
from distill_platform.models.hf_preprocess import MAX_TOKENS, some
from distill_platform.models.optional import optional_library
from distill_platform.models.reference import Reference

AUTO_CLASSES = {
    "text": "AutoModelForSequenceClassification",
    "tokens": "AutoModelForCausalLM",
    "image": "AutoModelForImageClassification",
}

log = logging.getLogger(__name__)


def huggingface(
    name: str,
    input_shape: tuple[int, ...],
    num_classes: int,
    *,
    kind: str,
    num_ids: int = 0,
    pretrained: bool = True,
    config: Mapping[str, Any] | None = None,
    new_head: bool = False,
    class_order: Sequence[int] | None = None,
    attention: str = "sdpa",
    max_tokens: int = MAX_TOKENS,
) -> nn.Module:
    """The model of `hf:FOLDER` or `hf:NAME@COMMIT`: text `[B, T]` or images `[B, channels, H, W]` -> `[B, C]`, tokens
    `[B, T]` -> `[B, T, V]`.

    pretrained:  false: its configuration alone, weights drawn new.
    config:      fields of the configuration to replace; all of them where a saved model is read.
    new_head:    true: an output layer drawn new, whatever the model's own classes are.
    class_order: which of the model's classes is each class of the data, where the model has them in another order.
    attention:   sdpa, or eager, which gives attention weights to those who listen.
    max_tokens:  tokens of a text that are read, where the model has a tokenizer of its own.

    Raises ModelError for a kind of input that it does not take, and for a configuration that does not fit the data.
    """
    if kind not in AUTO_CLASSES:
        raise ModelError(
            f"{name}: hf: models take {', '.join(AUTO_CLASSES)} inputs, got {kind}; for audio, whose feature "
            "extractors differ from model to model, use conv1d or import:"
        )
    if new_head and kind == "tokens":
        raise ModelError(f"{name}: new_head is for classes; a language model's output layer is of its vocabulary")
    given = dict(config or {})
    if "model_type" in given:
        settings = given
    else:
        stored = {**Reference.of(name).config(), **known_fields(name, given)}
        settings = fitted_config(name, stored, kind, input_shape, num_classes, num_ids, pretrained)
    order = list(class_order) if class_order is not None else None
    with optional_library(name, "hf"):
        if pretrained and torch.get_default_device().type != "meta":  # where nothing is computed, nothing is read
            model = _pretrained(name, kind, settings, new_head, attention)
        else:
            model = _auto(kind).from_config(make_config(settings), attn_implementation=attention, dtype=torch.float32)
    return HuggingFaceBody(model, kind, num_classes, order)


class HuggingFaceBody(nn.Module):
    """A transformers model as a body; its layers are called `model.…`."""

    def __init__(self, model: Any, kind: str, num_classes: int, class_order: list[int] | None) -> None:
        super().__init__()
        self.model, self.kind, self.num_classes, self.class_order = model, kind, num_classes, class_order
        first: dict[int, str] = {}
        named = self.named_parameters(remove_duplicate=False)
        self.tied = {name: kept for name, weight in named if (kept := first.setdefault(id(weight), name)) != name}
        self.register_state_dict_post_hook(_leave_out_tied)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_fill_in_tied)  # type: ignore[no-untyped-call]

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        seen = mask if not values.is_meta else _unseen(values)
        if self.kind == "image":
            num_channels = getattr(self.model.config, "num_channels", values.shape[1])
            if values.shape[1] == 1 < num_channels:
                values = values.expand(-1, num_channels, -1, -1)
            logits: Tensor = self.model(pixel_values=values).logits
        elif self.kind == "tokens":
            ids = (values - 1).clamp(min=0)  # id 0 is padding, which a model of the library does not know
            logits = self.model(input_ids=ids, attention_mask=seen, use_cache=False).logits[..., : self.num_classes]
        else:
            logits = self.model(input_ids=values, attention_mask=seen).logits
        return logits if self.class_order is None else logits[..., self.class_order]


def saved_args(args: Mapping[str, Any], body: nn.Module) -> dict[str, Any]:
    """Arguments that build the same body without the folder it came from, and without a network."""
    assert isinstance(body, HuggingFaceBody)
    config = {key: value for key, value in body.model.config.to_dict().items() if key not in NOT_KEPT}
    return {**args, "pretrained": False, "config": _plain(config)}


def _pretrained(name: str, kind: str, settings: Mapping[str, Any], new_head: bool, attention: str) -> Any:
    reference = Reference.of(name)
    before = {int(index) for index in (reference.config().get("id2label") or {0: "", 1: ""})}
    new_head = kind != "tokens" and (new_head or len(before) != len(settings["id2label"]))
    try:
        model, info = _auto(kind).from_pretrained(
            reference.place,
            config=make_config(settings),
            revision=reference.revision,
            use_safetensors=True,
            ignore_mismatched_sizes=new_head,
            attn_implementation=attention,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{name}: its weights cannot be loaded, and only safetensors are: {error}") from error
    drawn = sorted({*info["missing_keys"], *(each[0] for each in info["mismatched_keys"])})
    inside = [key for key in drawn if key.startswith(f"{model.base_model_prefix}.") and ".pooler." not in key]
    if inside:
        raise ModelError(
            f"{name}: its weights hold none for {some(inside)}; the folder's config.json is of another model"
        )
    if new_head:
        for key in _redraw_head(model):
            drawn = sorted({*drawn, key})
    if drawn:
        log.info("%s: drawn new, as the pretrained weights hold none for these classes: %s", name, ", ".join(drawn))
    return model


def _redraw_head(model: Any) -> list[str]:
    """Draw every layer new that stands outside of what the library calls the base model. Gives their parameters."""
    redrawn = []
    for name, module in model.named_children():
        if name != model.base_model_prefix:
            for layer in module.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=getattr(model.config, "initializer_range", 0.02))
                    if layer.bias is not None:
                        nn.init.zeros_(layer.bias)
            redrawn += [f"{name}.{key}" for key, _ in module.named_parameters()]
    return redrawn


def _auto(kind: str) -> Any:
    import transformers

    return getattr(transformers, AUTO_CLASSES[kind])


def _unseen(ids: Tensor) -> Tensor:
    """What adds nothing to attention: of a plain mask transformers looks at the values, and on the meta device there
    are none.
    """
    return ids.new_zeros(len(ids), 1, ids.shape[-1], ids.shape[-1], dtype=torch.float32)


def _leave_out_tied(body: HuggingFaceBody, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    """One name for each weight: files of weights hold none twice."""
    for name in body.tied:
        state.pop(prefix + name, None)


def _fill_in_tied(body: HuggingFaceBody, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    for name, kept in body.tied.items():
        if prefix + kept in state:
            state.setdefault(prefix + name, state[prefix + kept])


def _plain(value: Any) -> Any:
    """As JSON has it: keys are text, tuples lists."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
