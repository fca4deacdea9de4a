from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill_platform.cluster import connect
from distill_platform.data import prepare, shards
from distill_platform.data.columns import read_columns
from distill_platform.data.ids import keys_of
from distill_platform.data.prepare import describe_source, prepare_examples, source_fingerprint
from distill_platform.data.schema import Schema
from tests.data.small_files import HASH, tabular, write_csv, write_idx, write_images, write_parquet


def contents(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows_in(folder: Path, split: str) -> dict[str, Any]:
    """Columns of all shards of a split."""
    parts = [read_columns(path) for path in sorted((folder / "splits").glob(f"{split}-*.parquet"))]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def splits_of(folder: Path) -> dict[str, str]:
    """Which split each id is in."""
    return {str(one): split for split in ("train", "val", "test") for one in rows_in(folder, split)["id"]}


def made(tmp_path: Path, name: str, source: str, **options: Any) -> Path:
    """The folder of a prepared source."""
    folder = tmp_path / name
    folder.mkdir()
    prepare_examples(folder, source, **{"split": HASH, "seed": 0, **options})
    return folder


def test_digits_come_out_whole_sorted_and_described(tmp_path: Path) -> None:
    import sklearn.datasets

    schema = prepare_examples(tmp_path, "sklearn:digits", split=HASH, seed=0)
    assert Schema.from_json(json.loads((tmp_path / "schema.json").read_text())) == schema
    assert (schema.input.shape, schema.input.dtype, schema.input.low, schema.input.high) == ((8, 8, 1), "uint8", 0, 16)
    assert schema.class_names == tuple("0123456789")
    assert sum(sum(per_class.values()) for per_class in schema.counts.values()) == 1797
    bunch = sklearn.datasets.load_digits()
    labels = {image.astype(np.uint8).tobytes(): label for image, label in zip(bunch.data, bunch.target, strict=True)}
    for split in ("train", "val", "test"):
        rows = rows_in(tmp_path, split)
        keys = [bytes(key) for key in rows["key"]]
        assert keys == sorted(keys)
        assert (keys_of(rows["id"].tolist()) == rows["key"]).all()
        assert [labels[image.tobytes()] for image in rows["input"]] == rows["label"].tolist()
        assert np.bincount(rows["label"]).tolist() == list(schema.counts[split].values())
    train = rows_in(tmp_path, "train")["input"].astype(float)
    assert schema.mean == pytest.approx([train.mean()])
    assert schema.std == pytest.approx([train.std()])
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_features_are_described_by_their_train_split(tmp_path: Path) -> None:
    schema = prepare_examples(tmp_path, "sklearn:wine", split=HASH, seed=0)
    train = rows_in(tmp_path, "train")["input"]
    assert schema.class_names == ("class_0", "class_1", "class_2")
    assert schema.input.feature_names[0] == "alcohol"
    assert (schema.input.low, schema.input.high) == (train.min(), train.max())
    assert schema.input.feature_ranges == pytest.approx(train.max(axis=0) - train.min(axis=0), rel=1e-6)
    assert schema.mean == pytest.approx(train.mean(axis=0), rel=1e-5)
    assert schema.std == pytest.approx(train.std(axis=0), rel=1e-4)


def test_the_same_rows_in_any_form_and_order_give_the_same_bytes(tmp_path: Path) -> None:
    columns = tabular()
    backwards = {name: list(reversed(values)) for name, values in columns.items()}
    wanted = contents(made(tmp_path, "a", write_parquet(tmp_path / "a.parquet", columns), label="kind", id="name"))
    sources = [
        write_parquet(tmp_path / "b.parquet", backwards, row_group_size=7),
        write_csv(tmp_path / "c.csv", columns),
        write_csv(tmp_path / "d.csv.gz", backwards),
    ]
    for number, source in enumerate(sources):
        assert contents(made(tmp_path, f"out{number}", source, label="kind", id="name")) == wanted


def test_ray_and_this_process_write_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_session: None
) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    for number in range(3):
        write_parquet(folder / f"{number}.parquet", tabular(200, seed=number), row_group_size=20)
    monkeypatch.setattr("distill_platform.data.parquet.PIECE_BYTES", 1000)
    here = contents(made(tmp_path, "here", str(folder), label="kind"))
    monkeypatch.setattr(prepare, "LARGE_BYTES", 0)
    started = []

    def start() -> None:
        connect()
        started.append(True)

    assert contents(made(tmp_path, "on_ray", str(folder), label="kind", workers=start)) == here
    assert started


def test_many_buckets_and_small_shards_change_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_parquet(tmp_path / "t.parquet", tabular(300))
    whole = made(tmp_path, "whole", source, label="kind")
    monkeypatch.setattr(prepare, "LARGE_BYTES", 0)
    monkeypatch.setattr(shards, "SHARD_BYTES", 20 * (8 + 256))
    parts = made(tmp_path, "parts", source, label="kind")
    sizes = [len(read_columns(path)["label"]) for path in sorted((parts / "splits").glob("train-*.parquet"))]
    assert len(sizes) > 3
    assert set(sizes[:-1]) == {20}
    for name, values in rows_in(whole, "train").items():
        assert np.array_equal(rows_in(parts, "train")[name], values)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 60), st.integers(0, 3))
def test_adding_examples_moves_no_other_between_splits(
    tmp_path_factory: pytest.TempPathFactory, more: int, seed: int
) -> None:
    tmp_path = tmp_path_factory.mktemp("moves")
    few = write_parquet(tmp_path / "few.parquet", tabular(120))
    joined = {name: list(tabular(more, 9)[name]) + list(values) for name, values in tabular(120).items()}
    many = write_parquet(tmp_path / "many.parquet", joined)
    before = splits_of(made(tmp_path, "few", few, label="kind", seed=seed))
    after = splits_of(made(tmp_path, "many", many, label="kind", seed=seed))
    assert len(after) == 120 + more
    assert before.items() <= after.items()


def test_groups_never_straddle_splits(tmp_path: Path) -> None:
    columns = {**tabular(300), "herd": [f"g{number // 5}" for number in range(300)]}
    source = write_parquet(tmp_path / "t.parquet", columns)
    folder = made(tmp_path, "out", source, label="kind", group="herd")
    groups = [set(rows_in(folder, split)["group"]) for split in ("train", "val", "test")]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 60


def test_equal_examples_share_a_split_and_have_ids_of_their_own(tmp_path: Path) -> None:
    columns = tabular(100)
    columns = {name: list(values) * 3 for name, values in columns.items()}
    folder = made(tmp_path, "out", write_parquet(tmp_path / "t.parquet", columns), label="kind")
    splits = splits_of(folder)
    assert len(splits) == 300
    assert sum(len(rows_in(folder, split)["id"]) for split in ("train", "val", "test")) == 300
    first = [one for one in splits if "-" not in one]
    assert len(first) == 100
    assert all(splits[one] == splits[f"{one}-1"] == splits[f"{one}-2"] for one in first)
    for split in ("train", "val", "test"):
        rows = rows_in(folder, split)
        assert (keys_of(rows["id"].tolist()) == rows["key"]).all()
        keys = [bytes(key) for key in rows["key"]]
        assert keys == sorted(keys)


def test_a_column_decides_the_splits(tmp_path: Path) -> None:
    columns = {**tabular(90), "part": [("train", "test", "val", "train")[number // 3 % 4] for number in range(90)]}
    source = write_csv(tmp_path / "t.csv", columns)
    folder = made(tmp_path, "out", source, label="kind", id="name", split={"by": "column", "column": "part"})
    assert splits_of(folder) == dict(zip(columns["name"], columns["part"], strict=True))


def test_a_test_source_stays_the_test_split(tmp_path: Path) -> None:
    train, test = (
        write_csv(tmp_path / "a.csv", tabular(120)),
        write_csv(tmp_path / "b.csv", tabular(40, 1) | {"name": [f"t{n}" for n in range(40)]}),
    )
    folder = made(tmp_path, "out", train, label="kind", id="name", split={"by": "sources", "test": test, "val": 0.2})
    splits = splits_of(folder)
    assert {one for one, split in splits.items() if split == "test"} == {f"t{number}" for number in range(40)}
    assert 10 < sum(split == "val" for split in splits.values()) < 40


def test_idx_has_its_own_test_split(tmp_path: Path) -> None:
    split = {"by": "sources", "val": 0.2}
    packed = made(tmp_path, "a", write_idx(tmp_path / "gz"), split=split)
    plain = made(tmp_path, "b", write_idx(tmp_path / "raw", packed=False), split=split)
    assert contents(packed) == contents(plain)
    assert rows_in(packed, "test")["input"].shape == (40, 6, 5, 1)
    assert len(rows_in(packed, "train")["id"]) + len(rows_in(packed, "val")["id"]) == 80


def test_float_images_keep_their_range_from_train(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "f.npz", x=rng.normal(size=(80, 4, 4)), y=np.arange(80) % 2)
    folder = made(tmp_path, "out", str(tmp_path / "f.npz"))
    schema = Schema.from_json(json.loads((folder / "schema.json").read_text()))
    train = rows_in(folder, "train")["input"]
    assert (schema.input.kind, schema.input.shape, schema.input.dtype) == ("image", (4, 4, 1), "float32")
    assert (schema.input.low, schema.input.high) == (float(train.min()), float(train.max()))


def test_numeric_classes_are_sorted_by_value(tmp_path: Path) -> None:
    columns = {**tabular(120), "kind": [float(number % 12) for number in range(120)]}
    split = {"by": "hash", "val": 0.2, "test": 0.4}
    schema = prepare_examples(
        tmp_path, write_parquet(tmp_path / "t.parquet", columns), label="kind", split=split, seed=1
    )
    assert schema.class_names == tuple(str(number) for number in range(12))


def test_the_fingerprint_follows_content_and_options_alone(tmp_path: Path) -> None:
    def digest(source: str, **options: Any) -> str:
        return source_fingerprint(source, **{"label": "kind", "split": HASH, "seed": 0, **options})

    (tmp_path / "b").mkdir()
    one, same = write_csv(tmp_path / "t.csv", tabular()), write_csv(tmp_path / "b" / "t.csv", tabular())
    assert digest(one) == digest(same)
    assert digest(one) != digest(one, seed=1)
    assert digest(one) != digest(one, label="age")
    assert digest(one, transfer=one) == digest(one, transfer=same)
    assert len({digest(one), digest(one, transfer=one), digest(one, transfer="sklearn:wine")}) == 3
    before = digest(one)
    write_csv(tmp_path / "t.csv", tabular(seed=5))
    assert digest(one) != before
    assert digest("sklearn:wine") == digest("sklearn:wine") != digest("sklearn:digits")


def test_plan_learns_sizes_without_reading_inputs(tmp_path: Path) -> None:
    sources = {"split": {"by": "sources", "val": 0.1}}
    np.savez(tmp_path / "f.npz", x=np.zeros((30, 6)), y=np.arange(30) % 3)
    assert describe_source("sklearn:digits", split=HASH) == (1797, (8, 8, 1), 10, 0)
    assert describe_source(write_idx(tmp_path / "idx"), **sources) == (120, (6, 5, 1), 4, 0)
    assert describe_source(str(tmp_path / "f.npz"), split=HASH) == (30, (6,), 3, 0)
    table = write_parquet(tmp_path / "t.parquet", tabular())
    assert describe_source(table, label="kind", split=HASH) == (120, (2,), 3, 0)
    assert describe_source(write_csv(tmp_path / "t.csv", tabular()), label="kind", split=HASH) == (None, (2,), None, 0)
    assert describe_source(f"images:{write_images(tmp_path / 'i')}", split=HASH) == (60, (5, 7, 1), 2, 0)


def test_statistics_do_not_lose_digits_far_from_zero() -> None:
    values = 1e6 + np.random.default_rng(0).normal(size=(300_000, 2))
    moments = shards.Moments(2)
    for part in np.array_split(values, 7):
        moments.add(part)
    assert moments.mean == pytest.approx(values.mean(axis=0), rel=1e-12)
    assert moments.std == pytest.approx(values.std(axis=0), rel=1e-9)
    assert not math.isnan(moments.low[0])
