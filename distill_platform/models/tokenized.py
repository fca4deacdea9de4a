"""Text as the ids of a Hugging Face tokenizer, made from raw bytes within the network."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distill_platform.data.schema import InputSpec
from distill_platform.errors import ModelError
from distill_platform.models.optional import optional_library
from distill_platform.models.prepared import Prepared

TOKENIZER_FILE = "tokenizer.json"
REMEMBERED = 1 << 17
"""Texts whose ids are kept: a student sees the same ones every epoch."""


@dataclass(frozen=True)
class Tokenized:
    """Bytes of UTF-8 `[B, L]` -> ids `[B, T]`, with the tokenizer's special ones, and their mask.

    definition: tokenizer.json, kept beside model.json and known there by its sha256.
    max_tokens: T; of a longer text the first so many, special ones among them.
    padding_id: behind the end; the mask says so too.
    """

    kind: ClassVar[str] = "tokenizer"
    definition: bytes = field(repr=False)
    num_ids: int
    max_tokens: int
    padding_id: int

    @property
    def files(self) -> dict[str, bytes]:
        return {TOKENIZER_FILE: self.definition}

    def shape(self, input: InputSpec) -> tuple[int, ...]:
        return (self.max_tokens,)

    def module(self, input: InputSpec) -> nn.Module:
        return _Tokenizing(self)

    def to_json(self) -> dict[str, Any]:
        settings = {"num_ids": self.num_ids, "max_tokens": self.max_tokens, "padding_id": self.padding_id}
        return {"kind": self.kind, **settings}


class _Tokenizing(nn.Module):
    def __init__(self, settings: Tokenized) -> None:
        super().__init__()
        self.settings = settings
        self._ids: dict[bytes, list[int]] = {}

    def forward(self, raw: Tensor) -> Prepared:
        shape = (len(raw), self.settings.max_tokens)
        if raw.is_meta:
            return Prepared(raw.new_zeros(shape, dtype=torch.int64), raw.new_ones(shape, dtype=torch.bool))
        found = self._encoded([bytes(row).rstrip(b"\0") for row in raw.to("cpu", torch.uint8).numpy()])
        values = torch.full(shape, self.settings.padding_id)
        mask = torch.zeros(shape, dtype=torch.bool)
        for row, ids in enumerate(found):
            values[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = True
        return Prepared(values.to(raw.device), mask.to(raw.device))

    def _encoded(self, texts: Sequence[bytes]) -> list[list[int]]:
        missing = [text for text in dict.fromkeys(texts) if text not in self._ids]
        tokenizer = opened(self.settings.definition, self.settings.max_tokens)
        # a text that was cut inside a character loses that character; none is empty, or nothing of it could be pooled
        new = tokenizer.encode_batch([text.decode(errors="ignore") for text in missing])
        ids = {text: found.ids or [self.settings.padding_id] for text, found in zip(missing, new, strict=True)}
        known = {text: ids[text] if text in ids else self._ids[text] for text in texts}
        if len(self._ids) < REMEMBERED:
            self._ids |= ids
        return [known[text] for text in texts]


@functools.lru_cache(maxsize=8)
def opened(definition: bytes, max_tokens: int | None = None) -> Any:
    """The tokenizer of a tokenizer.json, without padding, cutting behind `max_tokens`. Raises ModelError."""
    with optional_library("a model with a tokenizer of its own", "hf"):
        from tokenizers import Tokenizer
    try:
        tokenizer = Tokenizer.from_str(definition.decode())
    except Exception as error:  # the library raises nothing more special
        raise ModelError(f"{TOKENIZER_FILE} cannot be read: {error}") from error
    tokenizer.no_padding()
    if max_tokens is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_tokens)
    return tokenizer
