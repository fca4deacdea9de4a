"""Texts become bytes that decode to themselves; what is cut is cut between characters; what cannot be is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_platform.data.examples import open_split
from distill_platform.data.prepare import prepare_examples
from distill_platform.data.texts import text_inputs, text_spec
from distill_platform.errors import DataError
from tests.data.small_files import HASH, prepared, write_csv, write_parquet
from tests.data.test_prepare import contents, made, rows_in, splits_of

WORDS = ("ant", "bee", "cät", "dög 😀", "eel\nand more", 'f,"g"')


def texts(num: int = 90) -> dict[str, Any]:
    return {
        "note": [f"{WORDS[number % 6]} number {number}" for number in range(num)],
        "kind": [("a", "b", "c")[number % 3] for number in range(num)],
    }


def shown(inputs: np.ndarray) -> list[str]:
    """Inputs as text again."""
    return [row.tobytes().rstrip(b"\0").decode() for row in inputs]


def text_spec_of(length: int) -> Any:
    return text_spec("s", length, lambda: 0)


def test_texts_that_the_cut_alone_makes_equal_are_refused_with_what_tells_them_apart(tmp_path: Path) -> None:
    same = {"note": ["a long note", "another", "b"], "kind": ["x", "y", "x"]}
    train = write_csv(tmp_path / "train.csv", {name: 20 * values for name, values in same.items()})
    test = write_csv(tmp_path / "test.csv", {"note": ["a long day", "c"], "kind": ["x", "y"]})
    split = {"by": "sources", "test": test, "val": 0.2}
    with pytest.raises(DataError, match="or raise data.length, behind which rows may differ"):
        prepare_examples(tmp_path / "out", train, label="kind", input="note", length=7, split=split, seed=0)


TEXTS = st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), min_size=1)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(0, 3))
def test_what_fits_comes_back_as_it_was(given_texts: list[str], before: int) -> None:
    column = pa.array(["x"] * before + given_texts, pa.large_string())[before:]
    longest = max(4, *(len(text.encode()) for text in given_texts))
    read = text_inputs(column, given_texts, text_spec_of(longest))
    assert shown(read.inputs) == given_texts
    assert (read.kept, read.faults, read.cut.any()) == (list(range(len(given_texts))), [], False)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(4, 12))
def test_what_is_longer_keeps_all_characters_that_fit_and_no_part_of_one(given_texts: list[str], length: int) -> None:
    read = text_inputs(pa.array(given_texts), given_texts, text_spec_of(length))
    for text, kept, cut in zip(given_texts, shown(read.inputs), read.cut, strict=True):
        fitting = [text[:end] for end in range(len(text) + 1) if len(text[:end].encode()) <= length]
        assert kept == fitting[-1]
        assert cut == (kept != text)


def test_csv_parquet_and_npz_give_the_same_texts_and_the_same_bytes(tmp_path: Path) -> None:
    columns = texts()
    quoted = {**columns, "note": ['"' + text.replace('"', '""') + '"' for text in columns["note"]]}
    unicode = tmp_path / "t.npz"
    np.savez(unicode, note=np.array(columns["note"]), kind=np.array(columns["kind"]))
    sources = [
        write_parquet(tmp_path / "t.parquet", columns, row_group_size=7),
        write_csv(tmp_path / "t.csv.gz", quoted),
        str(unicode),
    ]
    wanted, *others = [
        made(tmp_path, f"out{number}", source, label="kind", input="note") for number, source in enumerate(sources)
    ]
    for other in others:
        assert contents(other) == contents(wanted)
    rows = [text for split in ("train", "val", "test") for text in shown(rows_in(wanted, split)["input"])]
    assert sorted(rows) == sorted(columns["note"])
    schema = json.loads((wanted / "schema.json").read_text())
    assert schema["input"]["shape"] == [max(len(text.encode()) for text in columns["note"])]
    assert (schema["mean"], schema["std"], schema["num_cut"]) == ([], [], {})


def test_the_longest_of_all_sources_says_how_long_inputs_are(tmp_path: Path) -> None:
    longer = texts(30)
    longer["note"] = [text + " and some more" for text in longer["note"]]
    split = {
        "by": "sources",
        "test": write_parquet(tmp_path / "b.parquet", longer),
        "val": 0.3,
    }
    source = write_parquet(tmp_path / "a.parquet", texts())
    schema = prepare_examples(tmp_path / "out", source, label="kind", input="note", split=split, seed=0)
    assert schema.input.shape == (max(len(text.encode()) for text in longer["note"]),)


def test_a_longer_text_elsewhere_moves_no_other_between_splits(tmp_path: Path) -> None:
    one, more = texts(), texts()
    more["note"].append("a text that is much longer than all of the others are, so that every input gets longer")
    more["kind"].append("a")
    folders = [
        made(tmp_path, f"out{n}", write_parquet(tmp_path / f"{n}.parquet", columns), label="kind", input="note")
        for n, columns in enumerate((one, more))
    ]
    assert splits_of(folders[0]).items() <= splits_of(folders[1]).items()


def test_what_is_cut_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    columns = texts()
    source = write_parquet(tmp_path / "t.parquet", columns)
    with caplog.at_level("INFO", "distill_platform"):
        schema = prepare_examples(tmp_path / "out", source, label="kind", input="note", length=14, split=HASH, seed=0)
    assert schema.input.shape == (14,)
    assert sum(schema.num_cut.values()) == sum(len(text.encode()) > 14 for text in columns["note"])
    assert f"{schema.num_cut['train']} of train" in caplog.text


def test_shards_of_texts_are_compressed_and_mapped_all_the_same(tmp_path: Path) -> None:
    columns = texts()
    data = prepared(tmp_path / "w", write_parquet(tmp_path / "t.parquet", columns), label="kind", input="note")
    examples = open_split(data, "train")
    assert set(shown(examples.inputs.numpy())) <= set(columns["note"])
    shard = pq.ParquetFile(data.fetch("splits/train-00000.parquet"))
    group = shard.metadata.row_group(0)
    compression = {group.column(n).path_in_schema: group.column(n).compression for n in range(group.num_columns)}
    assert (compression["input"], compression["key"]) == ("ZSTD", "UNCOMPRESSED")


def test_texts_that_cannot_be_inputs_are_named(tmp_path: Path) -> None:
    columns = texts()
    columns["note"][3], columns["note"][5], columns["note"][8] = "", None, "nul\0byte"
    source = write_parquet(tmp_path / "t.parquet", columns)
    with pytest.raises(DataError) as error:
        prepare_examples(tmp_path / "out", source, label="kind", input="note", split=HASH, seed=0)
    said = str(error.value)
    assert "1 row with an empty text: t.parquet row 3; remove them" in said
    assert "1 row with a NUL byte in its text: t.parquet row 8" in said
    assert "1 row without an input: t.parquet row 5" in said


def test_bytes_that_are_no_utf8_are_named() -> None:
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"fine", b"\xff\xfe"], pa.binary()).buffers())
    read = text_inputs(broken, ["row 0", "row 1"], text_spec_of(8))
    assert shown(read.inputs) == ["fine"]
    assert read.faults == [("invalid text", "row 1")]


def test_what_somebody_wrote_is_no_missing_value(tmp_path: Path) -> None:
    columns = {**texts(), "note": [("n/a", "null", "nan")[number % 3] + str(number % 30) for number in range(90)]}
    columns["note"][:3] = ["NA", "null", "nan"]
    folder = made(tmp_path, "out", write_csv(tmp_path / "t.csv", columns), label="kind", input="note")
    found = {text for split in ("train", "val", "test") for text in shown(rows_in(folder, split)["input"])}
    assert found == set(columns["note"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sample_rate": 8000}, "whose input is a column of text, has no use for data.sample_rate; leave them out"),
        ({"image_size": (2, 2)}, "whose input is a column of text, has no use for data.image_size; leave them out"),
        ({"length": 3}, "data.length is 3 bytes; wanted 4 or more"),
    ],
)
def test_options_that_do_not_fit_texts(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    source = write_parquet(tmp_path / "t.parquet", texts())
    with pytest.raises(DataError, match=said):
        prepare_examples(tmp_path / "out", source, label="kind", input="note", split=HASH, seed=0, **options)


def test_a_length_without_a_sequence_is_refused(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "t.parquet", {**texts(), "age": np.arange(90.0)})
    with pytest.raises(DataError, match=r"has no use for data\.length"):
        prepare_examples(tmp_path / "out", source, label="kind", length=9, split=HASH, seed=0)
