"""Models for every kind of input, small, and inputs for them."""

from __future__ import annotations

import torch

from distill_platform.data.schema import InputSpec, Schema
from distill_platform.models import SavedModel, preprocess_for

INPUTS = {
    "image": InputSpec("image", (8, 8, 1), "uint8", 0, 16),
    "features": InputSpec("features", (3,), "float32", -1, 1, ("x", "y", "z"), (2, 2, 2)),
    "text": InputSpec("text", (24,), "uint8", 0, 255),
    "audio": InputSpec("audio", (1600,), "int16", -32767, 32767, sample_rate=8000),
    "tokens": InputSpec("tokens", (12,), "int32", 0, 10),
}
CLASSES = {"tokens": tuple(f"<{index}>" for index in range(11))}
MODEL_OF = {"image": "cnn", "features": "mlp", "text": "ngrams", "audio": "conv1d", "tokens": "transformer"}
SMALL = {
    "resnet": {"depth": 8, "width": 4},
    "vit": {"width": 16, "depth": 2},
    "ngrams": {"buckets": 64, "width": 8},
    "transformer": {"width": 16, "depth": 2, "heads": 2},
    "conv1d": {"channels": [8, 8]},
}


def schema_of(kind: str, class_names: tuple[str, ...] = ("no", "yes")) -> Schema:
    """What data of this kind looks like."""
    size = INPUTS[kind].shape[-1] if kind in ("image", "features") else 1
    return Schema(INPUTS[kind], CLASSES.get(kind, class_names), {}, (4.0,) * size, (2.0,) * size)


def model_for(name: str, kind: str, **args: object) -> SavedModel:
    """A small model of this name for data of this kind."""
    schema = schema_of(kind)
    given = {**SMALL.get(name, {}), **args}
    return SavedModel(name, given, schema.input, schema.class_names, preprocess_for(name, given, schema))


def raw_batch(kind: str, size: int = 5, seed: int = 0) -> torch.Tensor:
    """Raw inputs; sequences of different lengths, none of them as long as the input may be."""
    form, draw = INPUTS[kind], torch.Generator().manual_seed(seed)
    if form.padding is None:
        return torch.randint(0, 16, (size, *form.shape), generator=draw).to(getattr(torch, form.dtype))
    low, high = (1, 128) if kind == "text" else (0, 11) if kind == "tokens" else (-3000, 3000)
    raw = torch.randint(low, high, (size, *form.shape), generator=draw)
    lengths = torch.linspace(0.3, 0.6, size) * form.shape[0]
    raw[torch.arange(form.shape[0]) >= lengths[:, None]] = form.padding
    return raw.to(getattr(torch, form.dtype))
