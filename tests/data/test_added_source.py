"""What docs/data.md says of adding a source: a function, and a line in SOURCES."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from distill_platform.data.blocks import Block, ReadOptions, Source, in_blocks
from distill_platform.data.files import StoredFile, find_files
from distill_platform.data.prepare import prepare_examples, source_fingerprint
from distill_platform.data.schema import InputSpec
from distill_platform.data.sources import SOURCES
from distill_platform.errors import DataError
from tests.data.small_files import HASH


def open_mine(source: str, options: ReadOptions) -> Source:
    """`mine:FOLDER_URI`."""
    options.refuse_all_but(source)
    files = find_files(source.removeprefix("mine:"), (".mine",))
    spec = InputSpec("image", (2, 2, 1), "uint8", 0.0, 255.0)
    return Source(source, spec, tuple(files), partial(_read, spec), num_examples=None)


def _read(spec: InputSpec, file: StoredFile) -> Iterator[Block]:
    images = np.frombuffer(file.read(), np.uint8).reshape(-1, *spec.shape)
    labels = ["dark" if image.mean() < 128 else "light" for image in images]
    yield from in_blocks(spec, images, labels, f"{file.name} row {{}}".format)


def test_a_source_is_added_by_a_function_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for number in range(3):
        (tmp_path / f"{number}.mine").write_bytes(rng.integers(0, 256, (40, 4), dtype=np.uint8).tobytes())
    monkeypatch.setitem(SOURCES, "mine", open_mine)
    schema = prepare_examples(tmp_path / "out", f"mine:{tmp_path}", split=HASH, seed=0)
    assert schema.class_names == ("dark", "light")
    assert sum(schema.num_examples.values()) == 120
    before = source_fingerprint(f"mine:{tmp_path}", split=HASH, seed=0)
    (tmp_path / "0.mine").write_bytes(bytes(160))
    assert source_fingerprint(f"mine:{tmp_path}", split=HASH, seed=0) != before
    with pytest.raises(DataError, match=r"has no use for data\.label"):
        prepare_examples(tmp_path / "out", f"mine:{tmp_path}", label="kind", split=HASH, seed=0)
