from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from distill_platform.artifact import Artifact, produce
from distill_platform.errors import Corrupt, FormatError
from distill_platform.evaluate.bounds import TWO_SIDED_95, proportion_interval
from distill_platform.evaluate.evaluation import DESCRIPTION, PREDICTIONS, Evaluation, table
from distill_platform.evaluate.measures import TOKENS
from distill_platform.storage import LocalStorage


def committed(evaluation: Evaluation, tmp_path: Path) -> Artifact:
    body = lambda draft: evaluation.save(draft.folder)  # noqa: E731
    return produce(LocalStorage(tmp_path), "evaluate", 1, {}, {}, body)[0]


def test_an_evaluation_comes_back_as_it_was_saved(evaluation: Evaluation, tmp_path: Path) -> None:
    loaded = Evaluation.load(committed(evaluation, tmp_path))
    assert list(loaded.models) == ["teacher", "baseline", "student"]  # in their order
    for name, model in evaluation.models.items():
        assert np.array_equal(loaded.models[name].answers, model.answers)
        assert loaded.models[name].latency_ms == model.latency_ms
        assert loaded.models[name].digest == model.digest
    assert np.array_equal(loaded.labels, evaluation.labels)
    plain = ("ids", "class_names", "data_digest", "threads", "batch_size", "hardware")
    assert [getattr(loaded, name) for name in plain] == [getattr(evaluation, name) for name in plain]
    assert table(loaded) == table(evaluation)


def test_changed_predictions_are_refused(evaluation: Evaluation, tmp_path: Path) -> None:
    artifact = committed(evaluation, tmp_path)
    path = artifact.fetch(PREDICTIONS)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(Corrupt, match=r"predictions\.\w+\.parquet: sha256 is"):
        Evaluation.load(artifact)


def test_an_evaluation_of_another_format_is_refused(evaluation: Evaluation, tmp_path: Path) -> None:
    def body(draft: object) -> None:
        evaluation.save(draft.folder)
        path = draft.folder / DESCRIPTION
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))

    artifact, _ = produce(LocalStorage(tmp_path), "evaluate", 1, {}, {}, body)
    with pytest.raises(FormatError, match="has format 99, this release reads 1 and 2; run the evaluate step again"):
        Evaluation.load(artifact)


def test_table_gives_every_figure_that_people_ask_for(evaluation: Evaluation) -> None:
    row = {row["model"]: row for row in table(evaluation)}["student"]
    assert row["accuracy"] == pytest.approx(384 / 400)
    assert row["accuracy_interval"] == list(proportion_interval(384, 400, TWO_SIDED_95))
    assert row["num_parameters"] == 1_000
    assert row["size_bytes"] == 4_000
    assert row["latency_ms_p50"] == pytest.approx(1.0995)
    assert row["latency_ms_p95"] == pytest.approx(1.18905)
    assert {"macro_precision", "macro_recall", "macro_f1", "log_loss", "brier"} <= row.keys()


def test_no_nan_reaches_json(evaluation: Evaluation, tmp_path: Path) -> None:
    student = evaluation.models["student"]
    logits = student.answers.copy()
    logits[3, 1] = math.nan
    broken = dataclasses.replace(student, answers=logits, latency_ms=())
    broken_evaluation = dataclasses.replace(evaluation, models={**evaluation.models, "student": broken})
    row = table(broken_evaluation)[-1]
    assert row["accuracy"] is None
    assert row["accuracy_interval"] == [None, None]
    assert row["latency_ms_p95"] is None
    json.dumps(table(broken_evaluation), allow_nan=False)
    broken_evaluation.save(tmp_path)
    saved = json.loads((tmp_path / DESCRIPTION).read_text())
    assert saved["summary"]["student"]["macro_f1"] == {"value": None, "lower": None, "upper": None}
    assert saved["summary"]["teacher"]["macro_f1"]["value"] == pytest.approx(0.975, abs=0.002)


def test_an_evaluation_of_tokens_comes_back_as_it_was_saved(token_evaluation: Evaluation, tmp_path: Path) -> None:
    models = dict(token_evaluation.models)
    models["student"] = dataclasses.replace(models["student"], loss_by_position=(1.5, math.nan))
    given = dataclasses.replace(
        token_evaluation, models=models, subgroups=np.arange(60) % 2, subgroup_names=("prose", "verse")
    )
    loaded = Evaluation.load(committed(given, tmp_path))
    assert loaded.measures is TOKENS
    assert np.array_equal(loaded.labels, given.labels)
    assert np.array_equal(loaded.models["student"].answers, given.models["student"].answers)
    assert loaded.models["student"].loss_by_position == (1.5, pytest.approx(math.nan, nan_ok=True))
    assert loaded.groups.keys() == {"prose", "verse"}
    assert table(loaded) == table(given)
    assert {"perplexity", "bits_per_byte", "worst_group_perplexity"} <= table(loaded)[0].keys()


def test_subgroups_are_in_evaluation_json(grouped: Evaluation, tmp_path: Path) -> None:
    grouped.save(tmp_path)
    saved = json.loads((tmp_path / DESCRIPTION).read_text())
    south = saved["subgroups"]["south"]
    assert south["num_examples"] == 100
    assert south["summary"]["student"]["accuracy"]["value"] == 0.84
    assert south["summary"]["teacher"].keys() == saved["summary"]["teacher"].keys() - {"worst_group_accuracy"}
