"""Files that an earlier release stored stay readable. tests/golden/format-1 was written by 0.1.0 and never changes; nor
does evaluation-1, written by the last commit that knew evaluations of classes alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from distill_platform.artifact import open_artifact
from distill_platform.cache import open_manifest, verify_cache
from distill_platform.data.columns import read_columns
from distill_platform.evaluate.evaluation import Evaluation, table
from distill_platform.models import load_student_folder
from distill_platform.storage import LocalStorage

GOLDEN = Path(__file__).parent / "golden" / "format-1"
EVALUATION = Path(__file__).parent / "golden" / "evaluation-1"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


def test_a_model_folder_of_format_1() -> None:
    student = load_student_folder(GOLDEN / "model")
    assert np.allclose(student.logits(EXPECTED["raw"]), EXPECTED["logits"], atol=1e-6)
    assert student.class_names == ("no", "yes")


def test_an_artifact_and_a_cache_of_format_1() -> None:
    cache = open_artifact(LocalStorage(GOLDEN / "workspace"), "cache", EXPECTED["cache_key"], EXPECTED["cache_digest"])
    assert cache is not None
    assert verify_cache(cache) == 4
    manifest = open_manifest(cache)
    columns = read_columns(cache.fetch(manifest.splits["train"].shards[0]))
    assert columns["logits"].tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert columns["key"].shape == (4, 16)
    assert columns["view"].tolist() == [0, 1, 2, 3]


def test_an_evaluation_of_format_1() -> None:
    expected = json.loads((EVALUATION / "expected.json").read_text())
    storage = LocalStorage(EVALUATION / "workspace")
    artifact = open_artifact(storage, "evaluate", expected["key"], expected["digest"])
    assert artifact is not None
    evaluation = Evaluation.load(artifact)
    assert evaluation.measures.name == "classes"
    assert evaluation.groups == {}
    assert table(evaluation) == expected["table"]
