"""The data section of a spec reaches `prepare`, and where things lie is no part of what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill_platform import steps
from distill_platform.data.examples import open_schema
from distill_platform.spec import load_spec_json
from distill_platform.spec.schema import Spec
from distill_platform.workspace import Workspace
from tests.data.small_files import HASH, tabular, write_parquet, write_tokenizer
from tests.data.test_texts import texts


def spec_of(data: dict[str, Any]) -> Spec:
    model = {"name": "mlp"}
    gates = {"checks": ["accuracy >= 0.1"]}
    return load_spec_json(
        {"name": "x", "data": {"split": HASH, **data}, "teacher": {"model": model}, "student": model, "gates": gates}
    )


def test_counts_of_a_step_include_the_transfer_set(tmp_path: Path) -> None:
    columns = {**tabular(), "place": ["n", "s"] * 60}
    source, transfer = (write_parquet(tmp_path / f"{n}.parquet", columns) for n in "tu")
    data = {"source": source, "label": "kind", "subgroup": "place", "transfer": transfer}
    made = steps.prepare(spec_of(data), Workspace.at(str(tmp_path / "w")))
    schema = open_schema(made)
    assert made.record["facts"]["counts"] == schema.num_examples
    assert schema.num_unlabelled == schema.num_examples["train"] - sum(schema.counts["train"].values()) > 0
    assert schema.subgroup_names == ("n", "s")


def test_a_moved_source_transfer_set_or_tokenizer_is_the_same_data(tmp_path: Path) -> None:
    keys = []
    for place in (tmp_path / "a", tmp_path / "b"):
        place.mkdir()
        source = write_parquet(place / "t.parquet", texts())
        (place / "more").mkdir()
        transfer = write_parquet(place / "more" / "u.parquet", texts(9))
        given = {"source": source, "input": "note", "length": 16}
        workspace = Workspace.at(str(tmp_path / "w"))
        labelled = steps.prepare(spec_of({**given, "label": "kind", "transfer": transfer}), workspace)
        tokenizer = write_tokenizer(place / "tokenizer")
        tokens = steps.prepare(spec_of({**given, "length": 2, "tokenizer": tokenizer}), workspace)
        keys.append((labelled.key, tokens.key))
    assert keys[0] == keys[1]
    bytes_alone = steps.prepare(spec_of({**given, "length": 2, "tokenizer": "bytes"}), workspace)
    assert bytes_alone.key != keys[0][1]
