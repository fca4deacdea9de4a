"""Documents in blocks: no token lost, none doubled, targets one ahead of inputs, groups in one split."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_platform.data import documents as documents_module
from distill_platform.data.blocks import Block, ReadOptions
from distill_platform.data.examples import open_split, open_windowed
from distill_platform.data.loader import Loader
from distill_platform.data.order import WindowedOrder
from distill_platform.data.packing import GROUP_BLOCKS, Document, pack
from distill_platform.data.prepare import prepare_examples, source_fingerprint
from distill_platform.data.schema import UNLABELLED
from distill_platform.data.sources import open_source
from distill_platform.data.tokenizers import ByteTokenizer, Tokenizer
from distill_platform.data.views import Views
from distill_platform.errors import DataError
from tests.data.small_files import HASH, prepared, write_csv, write_parquet, write_tokenizer
from tests.data.test_prepare import contents, made, rows_in

BYTES = ByteTokenizer()
NONE = Views.of(1, 0, [])


def packed(texts: list[list[str]], length: int, tokenizer: Tokenizer = BYTES) -> list[Block]:
    return list(pack([Document(f"d{n}", parts) for n, parts in enumerate(texts)], tokenizer, length))


def without_padding(values: np.ndarray) -> list[int]:
    return [one for one in values.reshape(-1).tolist() if one >= 0]


PARTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=150), min_size=1, max_size=4)


@settings(max_examples=80, deadline=None)
@given(st.lists(PARTS, min_size=1, max_size=12), st.integers(1, 5))
def test_blocks_without_padding_are_the_documents_with_their_ends(texts: list[list[str]], length: int) -> None:
    blocks = packed(texts, length)
    wanted = [number for parts in texts for number in (*"".join(parts).encode(), BYTES.end_of_text)]
    assert [token for block in blocks for token in without_padding(block.inputs)] == wanted
    for block in blocks:
        assert block.targets is not None
        assert block.num_bytes is not None
        tokens, targets = without_padding(block.inputs), block.targets.reshape(-1)
        assert targets[: len(tokens) - 1].tolist() == tokens[1:]
        assert (targets[len(tokens) - 1 :] == UNLABELLED).all()
        for row, num_bytes in zip(block.targets, block.num_bytes, strict=True):
            assert num_bytes == sum(0 <= one < 256 for one in row.tolist())


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=30), st.integers(1, 4))
def test_a_group_ends_where_a_document_ends_if_that_fits_into_one(sizes: list[int], length: int) -> None:
    blocks = packed([["x" * size] for size in sizes], length)
    full = GROUP_BLOCKS * length
    for block in blocks:
        tokens = without_padding(block.inputs)
        assert len(tokens) <= full
        assert len(block.inputs) == -(-len(tokens) // length)
        assert tokens[-1] == BYTES.end_of_text or len(tokens) == full  # the latter: a part of a longer document
    whole = [size + 1 for size in sizes]
    if max(whole) <= full:  # greedily filled: no group could have held the next one's first document
        ends = [without_padding(block.inputs) for block in blocks]
        for tokens, following in pairwise(ends):
            assert len(tokens) + following.index(BYTES.end_of_text) + 1 > full


def test_documents_of_different_splits_share_no_group() -> None:
    parts = ["train", "test", "train", "val", "test"]
    documents = [Document(f"d{n}", [part * 3], part) for n, part in enumerate(parts)]
    for block in pack(documents, BYTES, 8):
        (split,) = set(block.splits or ())
        text = bytes(one for one in without_padding(block.inputs) if one < 256).decode()
        assert text == str(split) * (3 * parts.count(str(split)))


def write_documents(folder: Path, num: int = 40, packed_files: bool = False) -> str:
    """Text files of 50 to 1,200 letters; each names its letters by its number, so that equal content is none's."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(num):
        text = f"document {number}\n" + "".join(rng.choice(list("abcdefgh \n"), rng.integers(50, 1200)))
        path = folder / f"{number:02d}.txt{'.gz' if packed_files else ''}"
        path.write_bytes(gzip.compress(text.encode(), mtime=0) if packed_files else text.encode())
    return f"text:{folder}"


def test_files_come_out_as_blocks_that_are_split_by_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_documents(tmp_path / "t")
    schema = prepare_examples(tmp_path / "out", source, length=16, split=HASH, seed=0)
    assert (schema.input.kind, schema.input.shape, schema.input.dtype) == ("tokens", (16,), "int32")
    assert schema.class_names == BYTES.vocabulary
    assert (schema.mean, schema.std, schema.tokenizer_digest) == ((), (), BYTES.digest)
    rows = {split: rows_in(tmp_path / "out", split) for split in ("train", "val", "test")}
    assert {split: {"blocks": len(found["id"])} for split, found in rows.items()} == schema.counts
    groups = [set(found["group"]) for found in rows.values()]
    assert len(set.union(*groups)) == sum(map(len, groups)) > 15
    assert sum(int(found["num_bytes"].sum()) for found in rows.values()) > 20_000
    monkeypatch.setattr(documents_module, "PART_CHARACTERS", 7)
    assert contents(made(tmp_path, "small_parts", source, length=16)) == contents(tmp_path / "out")
    assert source_fingerprint(source, length=16, split=HASH, seed=0) == source_fingerprint(
        source, length=16, tokenizer=None, split=HASH, seed=0
    )


def test_packed_files_give_the_same_blocks(tmp_path: Path) -> None:
    plain = made(tmp_path, "a", write_documents(tmp_path / "t"), length=16)
    assert contents(made(tmp_path, "b", write_documents(tmp_path / "gz", packed_files=True), length=16)) == contents(
        plain
    )


def test_rows_of_tables_are_documents(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [f"row {number} " + "ab" * int(rng.integers(5, 200)) for number in range(60)]
    columns = {"note": texts, "part": [("train", "val", "test")[number % 3] for number in range(60)]}
    split = {"by": "column", "column": "part"}
    options: dict[str, Any] = {"input": "note", "tokenizer": "bytes", "length": 16, "split": split}
    one = made(tmp_path, "a", write_parquet(tmp_path / "t.parquet", columns, row_group_size=7), **options)
    assert contents(made(tmp_path, "b", write_csv(tmp_path / "t.csv", columns), **options)) == contents(one)
    for number, part in enumerate(("train", "val", "test")):
        rows = rows_in(one, part)
        ends = sum((row == BYTES.end_of_text).sum() for row in rows["input"])
        assert ends == 20
        held = sorted(set(rows["group"].tolist()))
        assert sum(len(text) + 1 for text in texts[number::3]) == (rows["input"] >= 0).sum()
        assert len(held) > 1


def test_a_hugging_face_tokenizers_bytes_are_counted(tmp_path: Path) -> None:
    name = write_tokenizer(tmp_path / "tokenizer")
    source = write_documents(tmp_path / "t")
    schema = prepare_examples(tmp_path / "out", source, tokenizer=name, length=16, split=HASH, seed=0)
    rows = [rows_in(tmp_path / "out", split) for split in ("train", "val", "test")]
    in_files = sum(path.stat().st_size for path in (tmp_path / "t").iterdir())
    counted = sum(int(found["num_bytes"].sum()) for found in rows)
    assert 0 < in_files - counted <= 8 * sum(len(set(found["group"])) for found in rows)  # a group's first token
    assert "<|end|>" in schema.class_names
    other = write_tokenizer(tmp_path / "other", vocab_size=290)
    digests = {source_fingerprint(source, tokenizer=one, split=HASH, seed=0) for one in (None, name, other)}
    assert len(digests) == 3


def test_opened_blocks_have_labels_and_bytes_and_come_in_windows(tmp_path: Path) -> None:
    data = prepared(tmp_path / "w", write_documents(tmp_path / "t"), length=16)
    examples = open_split(data, "train")
    assert (str(examples.labels.dtype), examples.labels.shape) == ("torch.int32", examples.inputs.shape)
    assert examples.num_bytes is not None
    assert len(examples.num_bytes) == len(examples)
    order = WindowedOrder(window_blocks=2, block_examples=128)
    held, reader = open_windowed(data, "train", order)
    batches = list(Loader(held, NONE, 50, 0, order, (reader,)).batches(0))
    reader.close()
    assert sum(len(batch.index) for batch in batches) == len(examples)
    for batch in batches:
        assert str(batch.labels.dtype) == "torch.int64"
        assert batch.labels.equal(examples.labels[batch.index].long())
        assert batch.inputs.equal(examples.inputs[batch.index])


def test_a_worker_reads_what_this_process_reads(tmp_path: Path) -> None:
    from ray import cloudpickle

    name = write_tokenizer(tmp_path / "tokenizer")
    opened = open_source(write_documents(tmp_path / "t"), ReadOptions(length=16, tokenizer=name))
    elsewhere = cloudpickle.loads(cloudpickle.dumps(opened))
    here, there = ([block for piece in one.pieces for block in one.read(piece)] for one in (opened, elsewhere))
    assert [block.ids for block in here] == [block.ids for block in there]
    assert all(np.array_equal(one.inputs, other.inputs) for one, other in zip(here, there, strict=True))


def test_documents_that_cannot_be_read_are_named_together(tmp_path: Path) -> None:
    source = write_documents(tmp_path / "t")
    (tmp_path / "t" / "03.txt").write_bytes(b"")
    (tmp_path / "t" / "05.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "t" / "07.txt.gz").write_bytes(gzip.compress(b"a text" * 99)[:-9])
    with pytest.raises(DataError) as error:
        prepare_examples(tmp_path / "out", source, length=16, split=HASH, seed=0)
    assert "3 rows with a text that cannot be read: 03.txt (it is empty), 05.txt (no UTF-8: " in str(error.value)
    assert "07.txt.gz (Compressed file ended" in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"label": "kind"}, "has no use for data.label"),
        ({"transfer": "same"}, "data.transfer is for examples without labels, and text is its own"),
        ({"tokenizer": "words"}, "data.tokenizer is 'words'; wanted bytes"),
        ({"length": 2000}, "no examples in "),
    ],
)
def test_options_that_do_not_fit_documents(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    source = write_documents(tmp_path / "t")
    options = {name: source if value == "same" else value for name, value in options.items()}
    with pytest.raises(DataError, match=said):
        prepare_examples(tmp_path / "out", source, split=HASH, seed=0, **options)


def test_equal_texts_in_train_and_test_are_refused(tmp_path: Path) -> None:
    source = write_documents(tmp_path / "t")
    with pytest.raises(DataError, match="rows of the same content in different splits"):
        prepare_examples(
            tmp_path / "out", source, length=16, split={"by": "sources", "test": source, "val": 0.2}, seed=0
        )
