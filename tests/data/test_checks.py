from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_platform.data.prepare import prepare_examples
from distill_platform.errors import DataError
from tests.data.small_files import HASH, tabular, write_csv, write_idx, write_images, write_parquet


def refusal(tmp_path: Path, source: str, **options: Any) -> str:
    """What the DataError says."""
    with pytest.raises(DataError) as error:
        prepare_examples(tmp_path, source, **{"split": HASH, "seed": 0, **options})
    return str(error.value)


def test_every_faulty_row_is_named_in_one_message(tmp_path: Path) -> None:
    columns = tabular()
    columns["kind"][4] = columns["kind"][9] = None
    columns["age"], columns["height"] = columns["age"].tolist(), columns["height"].tolist()
    columns["age"][7], columns["height"][8], columns["age"][8] = None, float("inf"), float("nan")
    for source in (write_csv(tmp_path / "t.csv", columns), write_parquet(tmp_path / "t.parquet", columns)):
        name = Path(source).name
        said = refusal(tmp_path, source, label="kind")
        assert said.startswith(f"{source} has 2 faults:\n")
        assert f"2 rows without a label: {name} row 4, {name} row 9; label or remove them" in said
        assert f"2 rows with a value that is missing, NaN or infinite: {name} row 7 (age), " in said
        assert f"{name} row 8 (age, height); fill in or remove them" in said


def test_of_many_faulty_rows_the_first_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    columns = {**tabular(), "kind": [None] * 20 + tabular()["kind"][20:]}
    said = refusal(tmp_path, write_csv(tmp_path / "t.csv", columns), label="kind")
    assert (
        "20 rows without a label: t.csv row 0, t.csv row 1, t.csv row 2, t.csv row 3, t.csv row 4 and 15 more" in said
    )


def test_constant_features_are_named(tmp_path: Path) -> None:
    columns = {**tabular(), "flat": [3.5] * 120}
    said = refusal(tmp_path, write_parquet(tmp_path / "t.parquet", columns), label="kind")
    assert "constant in train: flat (always 3.5); leave them out" in said


def test_repeated_ids_are_named_with_their_rows(tmp_path: Path) -> None:
    columns = tabular()
    columns["name"][11] = "e3"
    said = refusal(tmp_path, write_csv(tmp_path / "t.csv", columns), label="kind", id="name")
    assert "ids given more than once (1): 'e3' at t.csv row 3 and t.csv row 11; ids have to be unique" in said


def test_an_id_in_two_splits_is_refused(tmp_path: Path) -> None:
    train, test = write_csv(tmp_path / "a.csv", tabular(120)), write_csv(tmp_path / "b.csv", tabular(40))
    said = refusal(tmp_path, train, label="kind", id="name", split={"by": "sources", "test": test, "val": 0.2})
    assert "rows of the same id in different splits (40 pairs): " in said
    assert "(test)" in said
    assert "keep one of each" in said


def test_equal_content_in_two_given_splits_is_refused(tmp_path: Path) -> None:
    columns = {**tabular(90), "part": [("train", "test", "val")[number // 3 % 3] for number in range(90)]}
    columns["age"][3], columns["height"][3] = columns["age"][0], columns["height"][0]
    source = write_parquet(tmp_path / "t.parquet", columns)
    said = refusal(tmp_path, source, label="kind", split={"by": "column", "column": "part"})
    assert "rows of the same content in different splits (1 pair): " in said
    assert "t.parquet row 3 (test) and t.parquet row 0 (train)" in said


def test_a_group_in_two_given_splits_is_refused(tmp_path: Path) -> None:
    columns = {**tabular(90), "part": [("train", "test", "val")[number // 3 % 3] for number in range(90)]}
    columns["herd"] = [f"g{number // 3}" for number in range(90)]
    columns["herd"][3] = "g0"
    source = write_csv(tmp_path / "t.csv", columns)
    said = refusal(tmp_path, source, label="kind", group="herd", split={"by": "column", "column": "part"})
    assert "groups in more than one split (1): g0; put each into one" in said


def test_unknown_splits_are_named(tmp_path: Path) -> None:
    columns = {**tabular(90), "part": [("train", "test", "val")[number // 3 % 3] for number in range(90)]}
    columns["part"][5] = "valid"
    source = write_csv(tmp_path / "t.csv", columns)
    said = refusal(tmp_path, source, label="kind", split={"by": "column", "column": "part"})
    assert "1 row in no known split: t.csv row 5 ('valid'); the split column has to hold train, val or test" in said


def test_classes_that_train_or_test_lacks_are_named(tmp_path: Path) -> None:
    columns = {**tabular(90), "part": [("train", "test", "val")[number // 3 % 3] for number in range(90)]}
    columns["kind"] = [
        "eel" if part == "test" else kind for part, kind in zip(columns["part"], columns["kind"], strict=True)
    ]
    source = write_csv(tmp_path / "t.csv", columns)
    said = refusal(tmp_path, source, label="kind", split={"by": "column", "column": "part"})
    assert "train has no example of class eel" in said
    assert "test has no example of 3 classes ant, bee, cat" in said


def test_one_class_and_empty_splits_are_refused(tmp_path: Path) -> None:
    columns = {**tabular(30), "kind": ["ant"] * 30, "part": ["train"] * 30}
    source = write_csv(tmp_path / "t.csv", columns)
    said = refusal(tmp_path, source, label="kind", split={"by": "column", "column": "part"})
    assert "1 class (ant); wanted 2 or more: is data.label right?" in said
    assert "no examples in val and test (of 30)" in said


def test_unreadable_and_oddly_sized_images_are_named(tmp_path: Path) -> None:
    from PIL import Image

    folder = write_images(tmp_path / "images")
    (folder / "left" / "05.png").write_bytes(b"no image")
    cut = (folder / "right" / "07.png").read_bytes()
    (folder / "right" / "07.png").write_bytes(cut[: len(cut) // 2])
    Image.new("L", (9, 4)).save(folder / "right" / "08.png")
    said = refusal(tmp_path, f"images:{folder}")
    assert "2 rows with an unreadable image: left/05.png (" in said
    assert "right/07.png (" in said
    assert "1 row of another size than the first image: right/08.png (4 x 9); set data.image_size" in said


def test_a_table_that_breaks_off_is_named(tmp_path: Path) -> None:
    columns = tabular()
    columns["age"] = ["old" if number == 60 else one for number, one in enumerate(columns["age"])]
    folder = tmp_path / "tables"
    folder.mkdir()
    write_csv(folder / "0.csv", tabular())
    write_csv(folder / "1.csv", columns)
    said = refusal(tmp_path, str(folder), label="kind")
    assert "1 file that cannot be read: 1.csv (" in said
    assert "'old'" in said


def test_tables_of_other_columns_than_the_first_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    write_parquet(folder / "0.parquet", tabular())
    columns = tabular(seed=1)
    del columns["height"]
    write_parquet(folder / "1.parquet", columns)
    assert "1 file that cannot be read: 1.parquet (without the column height)" in refusal(
        tmp_path, str(folder), label="kind"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "data.label has to name the label's column; it has name, age, height, kind"),
        ({"label": "kinds"}, "there is no column 'kinds', named by data.label; did you mean 'kind'?"),
        ({"label": "kind", "group": "herd"}, "there is no column 'herd', named by data.group; it has age, height"),
        ({"label": "kind", "input": "age"}, "column 'age' has the type double; wanted encoded images (binary), text,"),
        ({"label": "kind", "channels": 3}, "the column of images, texts or sounds, has no use for data.channels"),
        ({"label": "kind", "split": {"by": "sources", "val": 0.1}}, "no test split of its own; name the test source"),
    ],
)
def test_options_that_do_not_fit_a_table(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    assert said in refusal(tmp_path, write_parquet(tmp_path / "t.parquet", tabular()), **options)


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    assert "sklearn:digit is not known; did you mean digits?" in refusal(tmp_path, "sklearn:digit")
    assert "no .csv or .csv.gz file there; found nothing" in refusal(tmp_path, f"{tmp_path}/no.csv", label="kind")
    assert "nothing there that can be read as examples; wanted sklearn:NAME" in refusal(tmp_path, f"{tmp_path}/none")
    assert "has no use for data.label; leave them out" in refusal(tmp_path, "sklearn:digits", label="y")


def test_images_outside_a_class_folder(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images")
    (folder / "left" / "00.png").rename(folder / "stray.png")
    assert "images in no class folder (1), such as stray.png" in refusal(tmp_path, f"images:{folder}")


def test_broken_idx_files(tmp_path: Path) -> None:
    split = {"by": "sources", "val": 0.2}
    source = write_idx(tmp_path / "idx")
    labels = tmp_path / "idx" / "t10k-labels-idx1-ubyte.gz"
    whole = labels.read_bytes()
    labels.write_bytes(gzip.compress(gzip.decompress(whole)[:-3]))
    assert "t10k-labels-idx1-ubyte.gz is cut off: it announces 40 values and holds 37" in refusal(
        tmp_path, source, split=split
    )
    labels.write_bytes(whole[:-9])
    assert "cannot be unpacked" in refusal(tmp_path, source, split=split)
    labels.write_bytes(gzip.compress(b"\0\0\x0d\x01"))
    assert "begins with 00 00 0d 01, wanted 00 00 08" in refusal(tmp_path, source, split=split)
    labels.unlink()
    assert "t10k-labels-idx1-ubyte (or .gz) is missing; found t10k-images" in refusal(tmp_path, source, split=split)


def test_npz_arrays_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "f.npz"
    np.savez(path, x=np.zeros((5, 2)), y=np.zeros(4))
    assert "arrays differ in length: x (5,), y (4,)" in refusal(tmp_path, str(path))
    np.savez(path, x=np.zeros((5, 2, 2), np.int64), y=np.zeros(5))
    assert "x is int64 of shape [5, 2, 2]; wanted [N, F] numbers, images" in refusal(tmp_path, str(path))
    np.savez(path, inputs=np.zeros((5, 2)), y=np.zeros(5))
    assert "there is no column 'x', named by data.input; it has inputs, y" in refusal(tmp_path, str(path))
    np.savez(path, x=np.zeros((5, 2)), y=np.array([None] * 5, object))
    assert "Object arrays cannot be loaded when allow_pickle=False" in refusal(tmp_path, str(path))
    path.write_bytes(b"no archive")
    assert "cannot be read as .npz (File is not a zip file)" in refusal(tmp_path, str(path))
