"""Language modelling small enough for a second: a chain of tokens in which each mostly follows one other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill_platform.data.examples import Examples
from distill_platform.data.schema import InputSpec, Schema
from distill_platform.models import Ids, SavedModel, save_model

VOCABULARY = ("a", "b", "c", "d", "e")
LENGTH = 12
SCHEMA = Schema(
    InputSpec("tokens", (LENGTH,), "int32", 0, len(VOCABULARY) - 1), VOCABULARY, {"test": {"blocks": 0}}, (), ()
)


class Bigram(nn.Module):
    """Logits of the next token that depend on this one alone."""

    def __init__(self, num_ids: int, num_classes: int) -> None:
        super().__init__()
        self.table = nn.Embedding(num_ids, num_classes)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.table(values)
        return logits


def bigram(shape: tuple[int, ...], num_classes: int, *, num_ids: int) -> nn.Module:
    """The builder of `Bigram`."""
    return Bigram(num_ids, num_classes)


def chain(num_blocks: int, seed: int = 0, faithful: float = 0.8) -> Examples:
    """Blocks of a walk that goes to the next letter with this chance, else anywhere; the last of them is padded."""
    rng = np.random.default_rng(seed)
    tokens = np.zeros((num_blocks, LENGTH + 1), np.int64)
    tokens[:, 0] = rng.integers(len(VOCABULARY), size=num_blocks)
    for position in range(1, LENGTH + 1):
        anywhere = rng.integers(len(VOCABULARY), size=num_blocks)
        follows = rng.random(num_blocks) < faithful
        tokens[:, position] = np.where(follows, (tokens[:, position - 1] + 1) % len(VOCABULARY), anywhere)
    tokens[-1, LENGTH // 2 :] = -1
    inputs, labels = tokens[:, :-1].copy(), tokens[:, 1:].copy()
    labels[inputs < 0] = -1
    keys = torch.arange(num_blocks * 16).view(num_blocks, 16).to(torch.uint8)
    num_bytes = torch.from_numpy((labels >= 0).sum(1))
    return Examples(
        SCHEMA,
        keys,
        torch.from_numpy(inputs).int(),
        torch.from_numpy(labels).int(),
        num_bytes=num_bytes,
    )


def bigram_folder(folder: Path, sureness: float, schema: Schema = SCHEMA, **changed: Any) -> Path:
    """A model folder that expects the next letter, `sureness` nats above every other."""
    model = SavedModel(
        f"import:{__name__}:bigram", {}, schema.input, schema.class_names, Ids(6), "language_modelling", **changed
    )
    network = model.build()
    table = torch.zeros(6, 5)
    table[torch.arange(1, 6), torch.arange(1, 6) % 5] = sureness
    network.body.table.weight.data.copy_(table)
    save_model(folder, model, network)
    return folder
