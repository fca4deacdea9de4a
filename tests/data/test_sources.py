from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from distill_platform.data.blocks import Block, ReadOptions, Source
from distill_platform.data.prepare import prepare_examples, source_fingerprint
from distill_platform.data.sources import open_source
from distill_platform.storage import open_storage
from tests.data.small_files import HASH, tabular, write_csv, write_idx, write_images, write_parquet, write_wavs


def blocks(source: str, **options: Any) -> tuple[Source, list[Block]]:
    """An opened source and all its blocks."""
    opened = open_source(source, ReadOptions(**options))
    return opened, [block for piece in opened.pieces for block in opened.read(piece)]


def encoded(pixels: np.ndarray) -> bytes:
    """A PNG's bytes."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_npz_arrays_are_found_by_their_names(tmp_path: Path) -> None:
    x = np.arange(60, dtype=np.uint8).reshape(5, 2, 2, 3)
    np.savez(tmp_path / "f.npz", x=x, y=["a", "b", "", "a", "b"], id=np.arange(5), group=[1.0, 1.0, 2.0, 2.0, 2.0])
    opened, (block,) = blocks(str(tmp_path / "f.npz"))
    assert (opened.input.kind, opened.input.shape, opened.num_examples, opened.has_ids) == ("image", (2, 2, 3), 5, True)
    assert np.array_equal(block.inputs, x)
    assert block.labels == ["a", "b", None, "a", "b"]
    assert (block.ids, block.groups) == (["0", "1", "2", "3", "4"], ["1", "1", "2", "2", "2"])


def test_encoded_images_in_a_column_are_decoded_and_resized(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (4, 6, 3), dtype=np.uint8) for _ in range(6)]
    cells = [None, *map(encoded, images)]
    structs = [{"bytes": cell, "path": None} for cell in cells]
    for number, column in enumerate((cells, structs)):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"image": column, "kind": list("ababaaa")}), path)
        opened, (block,) = blocks(str(path), label="kind", input="image")
        assert opened.input.shape == (4, 6, 3)
        assert np.array_equal(block.inputs, np.stack(images))
        assert block.labels == list("babaaa")
        assert block.faults == [("missing input", f"{number}.parquet row 0")]
        opened, (small,) = blocks(str(path), label="kind", input="image", image_size=(2, 3), channels=1)
        assert small.inputs.shape == (6, 2, 3, 1)


def test_fixed_size_lists_are_images_or_features(tmp_path: Path) -> None:
    values = np.arange(48, dtype=np.uint8)
    nested = pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(pa.array(values), 4), 3)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(values), 12)
    pq.write_table(pa.table({"nested": nested, "flat": flat, "kind": [0, 1, 0, 1]}), tmp_path / "t.parquet")
    source = str(tmp_path / "t.parquet")
    opened, (block,) = blocks(source, label="kind", input="nested")
    assert (opened.input.kind, opened.input.dtype) == ("image", "uint8")
    assert np.array_equal(block.inputs, values.reshape(4, 3, 4, 1))
    opened, (block,) = blocks(source, label="kind", input="flat", image_size=(2, 2), channels=3)
    assert np.array_equal(block.inputs, values.reshape(4, 2, 2, 3))
    opened, (block,) = blocks(source, label="kind", input="flat")
    assert (opened.input.kind, opened.input.shape, block.inputs.dtype) == ("features", (12,), np.float32)


def test_features_are_the_numeric_columns_that_nothing_else_names(tmp_path: Path) -> None:
    columns = {**tabular(6), "adult": [True, False] * 3, "count": range(6), "note": ["x"] * 6}
    opened, (block,) = blocks(write_parquet(tmp_path / "t.parquet", columns), label="kind", id="name", group="count")
    assert opened.input.feature_names == ("age", "height", "adult")
    assert block.inputs[:, 2].tolist() == [1, 0, 1, 0, 1, 0]
    assert block.groups == [str(number) for number in range(6)]


def test_rows_are_counted_through_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill_platform.data.parquet.PIECE_BYTES", 1)
    opened, read = blocks(write_parquet(tmp_path / "t.parquet", tabular(120), row_group_size=50), label="kind")
    assert len(opened.pieces) == 3
    assert [where for block in read for where in block.where] == [f"t.parquet row {number}" for number in range(120)]


def test_images_take_their_class_from_their_folder_and_the_rotation_their_camera_noted(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images")
    image = Image.fromarray(np.arange(35, dtype=np.uint8).reshape(7, 5))
    exif = image.getexif()
    exif[0x0112] = 6  # to be shown turned clockwise
    image.save(folder / "left" / "00.png", exif=exif)
    opened, read = blocks(f"images:{folder}")
    assert opened.input.shape == (5, 7, 1)
    assert [label for block in read for label in block.labels] == ["left"] * 30 + ["right"] * 30
    assert np.array_equal(read[0].inputs[0, ..., 0], np.rot90(np.arange(35).reshape(7, 5), -1))


def test_image_folders_can_be_brought_to_one_size(tmp_path: Path) -> None:
    opened, read = blocks(f"images:{write_images(tmp_path / 'images')}", image_size=(3, 4), channels=3)
    assert opened.input.shape == (3, 4, 3)
    assert sum(len(block.inputs) for block in read) == 60


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket on a local S3 endpoint."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="data")
    yield "s3://data"
    server.stop()


def test_sources_on_s3_give_the_same_schema_and_fingerprint_as_local_ones(tmp_path: Path, bucket: str) -> None:
    write_idx(tmp_path / "idx")
    write_images(tmp_path / "images", per_class=10)
    write_parquet(tmp_path / "t.parquet", tabular())
    write_csv(tmp_path / "t.csv.gz", tabular())
    write_wavs(tmp_path / "wavs", per_class=10)
    (tmp_path / "documents").mkdir()
    for number in range(9):
        (tmp_path / "documents" / f"{number}.txt").write_text(f"document {number} " * 30)
    store = open_storage(bucket)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            store.upload(path, path.relative_to(tmp_path).as_posix())
    own: dict[str, Any] = {"split": {"by": "sources", "val": 0.2}}
    for name, options in {
        "idx:{}/idx": own,
        "images:{}/images": {"split": {"by": "hash", "val": 0.3, "test": 0.3}},
        "{}/t.parquet": {"label": "kind", "split": HASH},
        "{}/t.csv.gz": {"label": "kind", "split": HASH},
        "audio:{}/wavs": {"split": {"by": "hash", "val": 0.3, "test": 0.3}},
        "text:{}/documents": {"length": 4, "split": {"by": "hash", "val": 0.3, "test": 0.3}},
    }.items():
        here, there = name.format(tmp_path), name.format(bucket)
        (tmp_path / "out").mkdir(exist_ok=True)
        schemas = [prepare_examples(tmp_path / "out", source, seed=0, **options) for source in (here, there)]
        assert schemas[0] == schemas[1]
        digests = {source_fingerprint(source, seed=0, **options) for source in (here, there)}
        assert len(digests) == 1
