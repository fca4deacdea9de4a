"""A teacher's validation figures, its floor, and whether a given one fits the data."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from distill_platform.artifact import Artifact, Draft, produce
from distill_platform.data.columns import write_columns
from distill_platform.data.schema import InputSpec, Schema
from distill_platform.errors import ModelError, TeacherRefused
from distill_platform.models import Ids, SavedModel, save_model
from distill_platform.steps import _refuse_below_floor
from distill_platform.storage import LocalStorage
from distill_platform.teacher import load_teacher, validation_counts
from distill_platform.teacher.train import ValidationCounts, _check_fits, _check_length
from tests.factory import make_data, make_teacher
from tests.factory_tokens import SCHEMA, VOCABULARY, bigram_folder, chain


def token_data(workspace: LocalStorage, schema: Schema = SCHEMA) -> Artifact:
    """Sixty validation blocks of the chain."""

    def body(draft: Draft) -> None:
        examples = chain(60, seed=3)
        assert examples.num_bytes is not None
        columns = {
            "key": examples.keys.numpy(),
            "input": examples.inputs.numpy(),
            "label": examples.labels.numpy(),
            "num_bytes": examples.num_bytes.int().numpy(),
        }
        write_columns(draft.path("splits/val-00000.parquet"), columns)
        draft.write_json("schema.json", schema.to_json())

    return produce(workspace, "prepare", 1, {"names": list(schema.class_names)}, {}, body)[0]


def loaded(workspace: LocalStorage, folder: Path, data: Artifact) -> Artifact:
    return produce(workspace, "teacher", 1, {}, {"data": data}, lambda draft: load_teacher(draft, folder, data))[0]


def with_validation(workspace: LocalStorage, document: dict[str, object]) -> Artifact:
    return produce(
        workspace, "teacher", 1, document, {}, lambda draft: draft.write_json("validation.json", document)
    )[0]  # fmt: skip


def test_a_classifiers_examples_are_their_own_clusters(tmp_path: Path) -> None:
    workspace = LocalStorage(tmp_path)
    teacher = make_teacher(workspace, make_data(workspace))
    found = validation_counts(teacher)
    assert (found.num_counted, found.num_clusters, found.per_token) == (60, 60, False)
    assert teacher.record["metrics"]["val_accuracy"] == found.num_correct / 60


def test_a_language_models_counts_are_of_labelled_tokens_in_blocks(tmp_path: Path) -> None:
    workspace = LocalStorage(tmp_path / "workspace")
    teacher = loaded(workspace, bigram_folder(tmp_path / "given", 2.0), token_data(workspace))
    found, test = validation_counts(teacher), chain(60, seed=3)
    inputs, labels = test.inputs.numpy(), test.labels.numpy()
    right, counted = ((inputs + 1) % 5 == labels) & (labels >= 0), labels >= 0
    assert (found.num_correct, found.num_counted, found.num_clusters) == (right.sum(), counted.sum(), 60)
    share = right.sum() / counted.sum()
    assert found.squared_residuals == pytest.approx(((right.sum(1) - share * counted.sum(1)) ** 2).sum())
    assert teacher.record["metrics"]["val_accuracy"] == pytest.approx(share)


def test_the_floor_of_a_language_model_takes_blocks_for_what_was_drawn(tmp_path: Path) -> None:
    workspace = LocalStorage(tmp_path)
    right = torch.tensor([50.0, 0.0] * 10)  # of 1,000 tokens half, in blocks that are all right or all wrong
    counts = ValidationCounts.of(right, torch.full((20,), 50.0), per_token=True)
    teacher = with_validation(workspace, dataclasses.asdict(counts))
    _refuse_below_floor(teacher, 0.25)
    with pytest.raises(
        TeacherRefused,
        match=r"is right on 500 of 1000 validation tokens, in 20 blocks, \(0\.5000\); its one-sided 95% lower bound is "
        r"0\.2\d+, teacher\.floor wants 0\.4",
    ):
        _refuse_below_floor(teacher, 0.4)  # plain Clopper-Pearson of 500 of 1,000 would give 0.473


def test_a_teacher_of_release_0_1_is_held_to_its_floor_as_before(tmp_path: Path) -> None:
    teacher = with_validation(LocalStorage(tmp_path), {"num_correct": 350, "num_examples": 360})
    _refuse_below_floor(teacher, 0.9531)
    with pytest.raises(TeacherRefused, match=r"350 of 360 validation examples \(0\.9722\); .* bound is 0\.953"):
        _refuse_below_floor(teacher, 0.955)


def test_a_teacher_with_no_label_to_be_measured_on_proves_nothing(tmp_path: Path) -> None:
    counts = ValidationCounts.of(torch.zeros(3), torch.zeros(3), per_token=True)
    with pytest.raises(TeacherRefused, match="0 of 0 validation tokens"):
        _refuse_below_floor(with_validation(LocalStorage(tmp_path), dataclasses.asdict(counts)), 0.1)


def saved(input: InputSpec, names: tuple[str, ...] = VOCABULARY) -> SavedModel:
    return SavedModel("any", {}, input, names, Ids(6), "language_modelling")


def test_a_vocabulary_in_another_order_is_refused_with_its_order(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError,
        match=r"has the same 5 classes as the data in another order \('a' is 0 in the data, 1 in the teacher, 'b' is 1 "
        r"in the data, 0 in the teacher\), and no mapping is applied: number the data's classes in the teacher's order",
    ):
        _check_fits(tmp_path, saved(SCHEMA.input, ("b", "a", "c", "d", "e")), SCHEMA)


def test_another_vocabulary_is_refused_with_a_few_of_its_names(tmp_path: Path) -> None:
    names = tuple(f"word{n}" for n in range(40_000))
    shown = "other names, the teacher's alone 'word0', .* 'word4' and 39995 more"
    with pytest.raises(ModelError, match=shown) as refused:
        _check_fits(tmp_path, saved(SCHEMA.input, names), SCHEMA)
    assert "the data's alone 'a', 'b', 'c', 'd', 'e'; give a teacher" in str(refused.value)
    assert len(str(refused.value)) < 500


def test_a_large_vocabulary_in_another_order_is_compared_in_no_time(tmp_path: Path) -> None:
    names = tuple(f"word{n}" for n in range(100_000))
    schema = dataclasses.replace(SCHEMA, class_names=names)
    with pytest.raises(ModelError, match="same 100000 classes .* and 99995 more"):
        _check_fits(tmp_path, saved(SCHEMA.input, names[::-1]), schema)


def test_sequences_may_be_of_another_length_and_images_may_not(tmp_path: Path) -> None:
    _check_fits(tmp_path, saved(dataclasses.replace(SCHEMA.input, shape=(512,))), SCHEMA)
    image = InputSpec("image", (8, 8, 1), "uint8", 0, 255)
    schema = dataclasses.replace(SCHEMA, input=image)
    with pytest.raises(ModelError, match=r"takes image inputs \[9, 8, 1\], the data has image inputs \[8, 8, 1\]"):
        _check_fits(tmp_path, saved(dataclasses.replace(image, shape=(9, 8, 1))), schema)
    with pytest.raises(ModelError, match=r"takes image inputs \[8, 8, 1\], the data has tokens inputs \[12\]"):
        _check_fits(tmp_path, saved(image), SCHEMA)


def test_sound_of_another_sample_rate_is_refused(tmp_path: Path) -> None:
    sound = InputSpec("audio", (8_000,), "int16", -32_767, 32_767, sample_rate=8_000)
    schema = dataclasses.replace(SCHEMA, input=sound)
    _check_fits(tmp_path, saved(dataclasses.replace(sound, shape=(16_000,))), schema)
    with pytest.raises(ModelError, match="of 16,000 samples per second, the data has .* of 8,000 samples per second"):
        _check_fits(tmp_path, saved(dataclasses.replace(sound, sample_rate=16_000)), schema)


def test_sequences_longer_than_a_teacher_can_take_are_refused_with_its_length(tmp_path: Path) -> None:
    short = dataclasses.replace(SCHEMA.input, shape=(8,))
    args = {"width": 8, "heads": 2, "depth": 1, "positions": "learned"}
    model = SavedModel("transformer", args, short, VOCABULARY, Ids(6), "language_modelling")
    save_model(tmp_path / "transformer", model, model.build())
    workspace = LocalStorage(tmp_path / "workspace")
    with pytest.raises(ModelError, match=r"for tokens inputs \[8\] and cannot take .* \[12\]: .*; set data.length: 8"):
        loaded(workspace, tmp_path / "transformer", token_data(workspace))


def test_texts_may_be_shorter_than_those_that_a_teacher_was_made_for(tmp_path: Path) -> None:
    text = InputSpec("text", (20,), "uint8", 0, 255)
    model = SavedModel("ngrams", {}, text, ("a", "b"), Ids(256))
    _check_length(tmp_path, model, model.build().eval(), dataclasses.replace(text, shape=(12,)))
