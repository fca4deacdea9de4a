"""Transfer sets are of train alone, without labels, and bring in nothing that val or test hold; subgroups are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill_platform.artifact import Artifact
from distill_platform.data.columns import read_columns
from distill_platform.data.examples import open_split
from distill_platform.data.prepare import describe_source, prepare_examples
from distill_platform.data.schema import UNLABELLED
from distill_platform.errors import DataError
from tests.data.small_files import (
    HASH,
    prepared,
    tabular,
    write_csv,
    write_idx,
    write_images,
    write_parquet,
)
from tests.data.test_prepare import contents, made, rows_in, splits_of


def more(num: int = 40) -> dict[str, Any]:
    """Rows like those of `tabular`, without a label, under columns in another order."""
    columns = tabular(num, seed=7)
    return {"note": ["x"] * num, "age": columns["age"], "height": columns["height"]}


def rows_of(data: Artifact, split: str) -> dict[str, Any]:
    """Columns of a split's one shard."""
    return read_columns(data.fetch(f"splits/{split}-00000.parquet"))


def test_transfer_rows_are_of_train_without_a_label(tmp_path: Path) -> None:
    source, transfer = write_parquet(tmp_path / "t.parquet", tabular()), write_csv(tmp_path / "u.csv", more())
    data = prepared(tmp_path / "w", source, label="kind", transfer=transfer)
    alone = made(tmp_path, "alone", source, label="kind")
    train = open_split(data, "train")
    assert (train.schema.num_unlabelled, train.schema.num_left_out) == (40, 0)
    assert int((train.labels == UNLABELLED).sum()) == 40
    assert train.schema.num_examples["train"] == len(train) == len(rows_in(alone, "train")["id"]) + 40
    assert train.schema.counts["train"] == {
        name: int((train.labels == number).sum()) for number, name in enumerate(train.schema.class_names)
    }
    assert train.schema.mean == pytest.approx(train.inputs.double().mean(dim=0).tolist())
    for split in ("val", "test"):
        assert rows_in(alone, split)["id"].tolist() == rows_of(data, split)["id"]
    glance = describe_source(source, label="kind", split=HASH, transfer=source)
    assert (glance.num_examples, glance.num_unlabelled) == (120, 120)


@pytest.mark.parametrize("named", [{}, {"id": "name"}])
def test_what_val_or_test_hold_is_left_out(tmp_path: Path, named: dict[str, str]) -> None:
    source = write_parquet(tmp_path / "t.parquet", tabular())
    whole = {name: values for name, values in tabular().items() if name in ("age", "height")}
    joined = {name: [*values, *more()[name], *more()[name][:3]] for name, values in whole.items()}
    transfer = write_csv(tmp_path / "u.csv", joined)
    folder = tmp_path / "out"
    schema = prepare_examples(folder, source, label="kind", **named, transfer=transfer, split=HASH, seed=0)
    held_out = schema.num_examples["val"] + schema.num_examples["test"]
    assert schema.num_left_out == held_out > 20
    assert schema.num_unlabelled == 120 - held_out + 43
    rows = [{tuple(row) for row in rows_in(folder, split)["input"].tolist()} for split in ("train", "val", "test")]
    assert not rows[0] & (rows[1] | rows[2])
    assert len(splits_of(folder)) == 120 + 120 - held_out + 43


def test_groups_that_val_or_test_hold_are_left_out(tmp_path: Path) -> None:
    herds = [f"g{number // 4}" for number in range(120)]
    source = write_parquet(tmp_path / "t.parquet", {**tabular(), "herd": herds})
    transfer = write_parquet(tmp_path / "u.parquet", {**more(), "herd": herds[:40]})
    folder = tmp_path / "out"
    schema = prepare_examples(folder, source, label="kind", group="herd", transfer=transfer, split=HASH, seed=0)
    groups = {split: set(rows_in(folder, split)["group"]) for split in ("train", "val", "test")}
    assert not groups["train"] & (groups["val"] | groups["test"])
    assert schema.num_left_out == sum(herd not in groups["train"] for herd in herds[:40]) > 0
    with pytest.raises(DataError, match=r"there is no column 'herd', named by data\.group"):
        bare = write_parquet(tmp_path / "v.parquet", more())
        prepare_examples(folder, source, label="kind", group="herd", transfer=bare, split=HASH, seed=0)


def test_their_order_and_the_size_of_their_parts_change_no_byte(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "t.parquet", tabular())
    backwards = {name: list(reversed(values)) for name, values in more().items()}
    folders = [
        made(tmp_path, name, source, label="kind", transfer=transfer)
        for name, transfer in {
            "a": write_parquet(tmp_path / "u.parquet", more()),
            "b": write_parquet(tmp_path / "v.parquet", backwards, row_group_size=3),
        }.items()
    ]
    assert contents(folders[0]) == contents(folders[1])


def test_images_and_arrays_may_be_a_transfer_set(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    loose = tmp_path / "loose"
    loose.mkdir()
    for number, path in enumerate(sorted(images.rglob("*.png"))[:7]):
        path.rename(loose / f"{number}.png")
    schema = prepare_examples(tmp_path / "a", f"images:{images}", transfer=f"images:{loose}", split=HASH, seed=0)
    assert schema.num_unlabelled == 7
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "t.npz", x=rng.normal(size=(90, 3)), y=np.arange(90) % 3)
    np.savez(tmp_path / "u.npz", x=rng.normal(size=(9, 3)))
    schema = prepare_examples(tmp_path / "b", f"{tmp_path}/t.npz", transfer=f"{tmp_path}/u.npz", split=HASH, seed=0)
    assert schema.num_unlabelled == 9
    own = {"by": "sources", "val": 0.2}
    other = write_idx(tmp_path / "idx")
    schema = prepare_examples(tmp_path / "c", other, transfer=other, split=own, seed=0)
    assert schema.num_unlabelled == schema.num_examples["train"] - sum(schema.counts["train"].values())
    assert schema.num_unlabelled + schema.num_left_out == 120


def test_a_transfer_set_of_another_form_is_refused(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "t.parquet", tabular())
    transfer = write_parquet(tmp_path / "u.parquet", {**more(), "weight": np.arange(40.0)})
    with pytest.raises(DataError, match=r"input differs between .*t\.parquet .* and .*u\.parquet"):
        prepare_examples(tmp_path / "out", source, label="kind", transfer=transfer, split=HASH, seed=0)


def test_a_missing_label_of_the_source_stays_a_fault(tmp_path: Path) -> None:
    columns = tabular()
    columns["kind"][4] = None
    source, transfer = write_parquet(tmp_path / "t.parquet", columns), write_csv(tmp_path / "u.csv", more())
    with pytest.raises(DataError, match="1 row without a label"):
        prepare_examples(tmp_path / "out", source, label="kind", transfer=transfer, split=HASH, seed=0)


def test_subgroups_are_numbered_by_their_names(tmp_path: Path) -> None:
    columns = {**tabular(), "place": [("north", "south", "east")[number % 7 % 3] for number in range(120)]}
    source, transfer = write_parquet(tmp_path / "t.parquet", columns), write_csv(tmp_path / "u.csv", more())
    data = prepared(tmp_path / "w", source, label="kind", id="name", subgroup="place", transfer=transfer)
    train = open_split(data, "train")
    assert train.schema.subgroup_names == ("east", "north", "south")
    assert train.subgroups is not None
    assert train.subgroups.dtype == torch.int64
    place = dict(zip(columns["name"], columns["place"], strict=True))
    rows = rows_of(data, "train")
    for one, number, label in zip(rows["id"], train.subgroups.tolist(), train.labels.tolist(), strict=True):
        assert (label == UNLABELLED) == (number == UNLABELLED)
        assert label == UNLABELLED or train.schema.subgroup_names[number] == place[one]


def test_a_subgroup_is_no_feature_and_a_missing_one_is_named(tmp_path: Path) -> None:
    columns = {**tabular(), "place": [number % 2 for number in range(120)]}
    source = write_parquet(tmp_path / "t.parquet", columns)
    schema = prepare_examples(tmp_path / "a", source, label="kind", subgroup="place", split=HASH, seed=0)
    assert (schema.input.feature_names, schema.subgroup_names) == (("age", "height"), ("0", "1"))
    assert "subgroup" not in rows_in(made(tmp_path, "b", source, label="kind", id="name"), "train")
    columns["place"][6] = None
    with pytest.raises(DataError, match=r"1 row without a subgroup: t\.csv row 6; fill in the column"):
        prepare_examples(
            tmp_path / "c", write_csv(tmp_path / "t.csv", columns), label="kind", subgroup="place", split=HASH, seed=0
        )
