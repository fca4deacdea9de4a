"""Bytes at rest, from files that the platform's writer wrote; and the variance of what `sampled` stores.

`cells`: bytes of the codec's own columns before compression. `payload`: as Parquet holds them, headers of pages
included. `file`: all of the file, so with keys, view numbers
and Parquet's own pages. Per unit: a token, or an example of a classification.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from made import as_streams, make_cache, make_data
from teachers import CHUNK_ENTRIES, NUM_DRAWS, PIXELS_PER_TOKEN, SEED, TokenTeacher, distinct_draws, random_tokens
from torch import Tensor

from distill_platform.artifact import Artifact
from distill_platform.cache import CODECS, Encoding, SampledTarget
from distill_platform.cache.choice import choose_encoding
from distill_platform.data.views import Views
from distill_platform.storage import LocalStorage

ONE_VIEW = Views.of(1, 0, [])
SIDE = 64
TOKENS_PER_ROW = SIDE * SIDE // PIXELS_PER_TOKEN
"""A row is an image of 64 by 64 raw bytes, read as 128 tokens of 32 bytes each."""


def encodings(num_classes: int, hidden_size: int) -> dict[str, Encoding]:
    """Every codec at its own settings."""
    return {name: choose_encoding(num_classes, (), codec=name, hidden_size=hidden_size) for name in CODECS}


def measure_tokens(folder: Path, teacher: TokenTeacher, num_tokens: Mapping[str, int], keep: int) -> dict[str, Any]:
    """Bytes per token of each codec over `num_tokens` of it; `sampled` with `keep` ids."""
    workspace = LocalStorage(folder)
    sizes = {}
    for name, encoding in encodings(teacher.vocabulary, teacher.weight.shape[1]).items():
        if name == "sampled":
            encoding = Encoding("sampled", teacher.vocabulary, keep=keep)
        data = make_data(workspace, max(1, num_tokens[name] // TOKENS_PER_ROW), SIDE, num_classes=2)

        def predict(inputs: Tensor, source: str = CODECS[name].source) -> dict[str, Tensor]:
            hidden = teacher.hidden(inputs.reshape(len(inputs), TOKENS_PER_ROW, PIXELS_PER_TOKEN))
            return {source: hidden if source == "hidden" else teacher.logits(hidden)}

        cache = make_cache(workspace, data, ONE_VIEW, predict, encoding, name, batch_size=1, splits=("train",))
        sizes[name] = {**_sizes(cache, TOKENS_PER_ROW), "encoding": encoding.__dict__}
    return sizes


def measure_examples(folder: Path, logits_NC: Tensor, num_rows: int) -> dict[str, Any]:
    """Bytes per example of each codec that keeps logits, of `num_rows` rows drawn from `logits_NC`."""
    workspace = LocalStorage(folder)
    data = make_data(workspace, num_rows, 1, num_classes=2)
    sizes = {}
    for name, encoding in encodings(logits_NC.shape[1], 0).items():
        if CODECS[name].source == "logits":

            def predict(inputs: Tensor) -> dict[str, Tensor]:
                return {"logits": logits_NC[torch.randint(len(logits_NC), (len(inputs),))]}

            cache = make_cache(workspace, data, ONE_VIEW, predict, encoding, name, batch_size=4096, splits=("train",))
            sizes[name] = {**_sizes(cache, 1), "encoding": encoding.__dict__}
    return sizes


def _sizes(cache: Artifact, units_per_row: int) -> dict[str, Any]:
    shards = cache.files_under("shards")
    columns: dict[str, int] = {}
    num_rows = 0
    for shard in shards:
        metadata = pq.ParquetFile(cache.fetch(shard)).metadata
        num_rows += metadata.num_rows
        for group in range(metadata.num_row_groups):
            for number in range(metadata.num_columns):
                column = metadata.row_group(group).column(number)
                columns[column.path_in_schema] = columns.get(column.path_in_schema, 0) + column.total_compressed_size
    units = num_rows * units_per_row
    own = [name for name in columns if name not in ("key", "view")]
    described = [metadata.schema.column(number) for number in range(metadata.num_columns)]
    cells = sum(column.length for column in described if column.name in own)
    payload = sum(columns[name] for name in own)
    return {
        "units": units,
        "cells": cells / units_per_row,
        "payload": payload / units,
        "file": cache.size_bytes(*shards) / units,
    }


def matched_keep(teacher: TokenTeacher, num_tokens: int, num_repeats: int) -> dict[str, Any]:
    """The fewest ids with which `sampled` varies no more than 50 independent draws, and the variances.

    Variance is E||estimate - p||^2, mean over tokens: of a student's gradient with respect to its logits too, up to a
    constant. That of n independent draws is (1 - ||p||^2) / n: Anshumann et al. 2025, arXiv:2503.16870, section 3.
    """
    inputs = random_tokens(num_tokens, SEED)
    ratios: dict[int, float] = {}
    for keep in range(2, NUM_DRAWS + 1):
        ratios[keep] = variance_ratio(teacher, inputs, keep, num_repeats)
        if ratios[keep] <= 1:
            break
    return {"keep": keep, "variance_vs_50_draws": ratios, "distinct_of_50": distinct_draws(teacher, inputs)}


def variance_ratio(teacher: TokenTeacher, inputs: Tensor, keep: int, num_repeats: int) -> float:
    """Mean over tokens of E||estimate - p||^2 as stored and decoded, over that of 50 independent draws."""
    codec, encoding = CODECS["sampled"], Encoding("sampled", teacher.vocabulary, keep=keep)
    sampled = independent = 0.0
    for part in inputs.split(max(1, CHUNK_ENTRIES // teacher.vocabulary)):
        logits = teacher.logits(teacher.hidden(part))
        p = logits.double().softmax(-1)
        square = p.square().sum(-1)
        independent += float((1 - square).sum()) / NUM_DRAWS
        for repeat in range(num_repeats):
            columns = codec.encode(logits, encoding, as_streams(len(part), repeat))
            target = codec.decode({name: torch.from_numpy(each) for name, each in columns.items()}, encoding, {})
            assert isinstance(target, SampledTarget)
            sampled += float(_squared_error(target, p, square).sum()) / num_repeats
    return sampled / independent


def _squared_error(target: SampledTarget, p: Tensor, square: Tensor) -> Tensor:
    """||estimate - p||^2 by token: the ids' own terms, and p^2 of all others. An id may come more than once."""
    at, inverse = torch.unique(target.ids + torch.arange(len(p))[:, None] * p.shape[-1], return_inverse=True)
    estimate = torch.zeros(len(at), dtype=torch.float64)
    estimate.index_add_(0, inverse.flatten(), target.weights.double().flatten())
    token = at // p.shape[-1]
    exact = p[token, at % p.shape[-1]]
    return square.index_add(0, token, (estimate - exact).square() - exact.square())
