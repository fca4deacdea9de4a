"""Codecs: what comes back is what went in, up to what each states."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill_platform.cache import CODECS, Encoding
from distill_platform.errors import CacheMismatch

NO_STREAMS = np.zeros(10, np.uint64)


def test_logits_beyond_half_precision_are_refused_with_advice() -> None:
    logits = torch.tensor([[1.0, 2.0], [70_000.0, 0.0]])
    with pytest.raises(CacheMismatch, match=r"1 rows hold logits that float16 cannot \(first: row 1.*cache.dtype"):
        CODECS["dense"].encode(logits, Encoding("dense", 2), NO_STREAMS)
    kept = CODECS["dense"].encode(logits, Encoding("dense", 2, "float32"), NO_STREAMS)
    assert kept["logits"][1, 0] == 70_000.0


def test_every_codec_states_its_bytes() -> None:
    logits = torch.randn(10, 7)
    for name, codec in CODECS.items():
        encoding = Encoding(name, 7)
        columns = codec.encode(logits, encoding, NO_STREAMS)
        assert sum(column[0].nbytes for column in columns.values()) == codec.bytes_per_unit(encoding), name
