"""Models by name, and the model folder that is enough to predict."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from distill_platform.data.schema import InputSpec
from distill_platform.errors import Corrupt, FormatError, ModelError
from distill_platform.models import (
    MODELS,
    Ids,
    SavedModel,
    Standardize,
    build_body,
    load_network,
    load_student_folder,
    model_source,
    save_model,
)
from distill_platform.models.builders import check_body
from tests.models.kinds import model_for, raw_batch, schema_of

IMAGE = InputSpec("image", (8, 8, 1), "uint8", 0, 16)
FEATURES = InputSpec("features", (3,), "float32", -1, 1, ("x", "y", "z"), (2, 2, 2))


def saved(name: str = "cnn", input: InputSpec = IMAGE, **args: object) -> SavedModel:
    size = input.shape[-1]
    return SavedModel(name, args, input, ("no", "yes"), Standardize((4.0,) * size, (2.0,) * size))


def plain(size: int) -> Standardize:
    return Standardize((0.0,) * size, (1.0,) * size)


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, (_, kinds) in MODELS.items() for kind in kinds])
def test_every_model_takes_the_kinds_of_inputs_that_it_names(name: str, kind: str) -> None:
    model = model_for(name, kind)
    schema = schema_of(kind)
    check_body(name, model.args, schema.input, len(schema.class_names), model.preprocess, per_token=kind == "tokens")
    output = model.build().eval()(raw_batch(kind))["logits"]
    shape = (5, *schema.input.shape, 11) if kind == "tokens" else (5, 2)
    assert output.values.shape == shape
    assert torch.isfinite(output.values).all()
    assert (output.mask is not None) == (kind == "tokens")


def test_a_model_for_other_inputs_is_refused_with_those_that_fit() -> None:
    schema = schema_of("text")
    with pytest.raises(
        ModelError, match="cnn takes image inputs, the data has text inputs; use ngrams, transformer, hf"
    ):
        build_body("cnn", {}, schema.input, 2, Ids(256))


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (32, 464_154), (56, 853_018)])
def test_resnets_have_the_published_sizes(depth: int, parameters: int) -> None:
    """0.27M, 0.46M and 0.85M: He et al. 2016, arXiv:1512.03385, table 6."""
    body = build_body("resnet", {"depth": depth}, InputSpec("image", (32, 32, 3), "uint8", 0, 255), 10, plain(3))
    assert sum(parameter.numel() for parameter in body.parameters()) == parameters


def test_the_seed_alone_decides_the_weights_and_leaves_the_callers_random_state() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (saved().build(seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_preprocessing_is_part_of_the_network() -> None:
    network = saved("mlp", FEATURES, hidden=[]).build()
    raw = torch.tensor([[2.0, 4.0, 6.0]])
    wanted = network.body((raw - 4) / 2)
    assert torch.allclose(network(raw)["logits"].values, wanted)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("cnnn", {}, "no model is called 'cnnn'; did you mean 'cnn'"),
        ("mlp", {"hiden": [3]}, "model 'mlp' has no argument 'hiden'; did you mean 'hidden'"),
        ("resnet", {"depth": 21}, "resnet depth is 21, wanted 6n \\+ 2"),
        ("mlp", {"hidden": "wide"}, "model 'mlp' with"),
        ("import:nowhere.at_all:make", {}, "wanted import:package.module:function"),
    ],
)
def test_a_wrong_name_or_argument_is_refused_with_advice(name: str, args: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_body(name, args, IMAGE, 2, plain(1))


def test_images_only_models_refuse_features() -> None:
    with pytest.raises(ModelError, match="cnn takes image inputs, the data has features inputs; use mlp"):
        build_body("cnn", {}, FEATURES, 2, plain(3))


@pytest.mark.parametrize("weights", ["float32", "float16", "bfloat16"])
def test_a_saved_model_predicts_the_same_from_raw_input(tmp_path: Path, weights: str) -> None:
    model = saved(channels=[4])
    network = model.build(1).eval()
    save_model(tmp_path, model, network, weights)
    pixels = np.random.default_rng(0).integers(0, 17, (6, 8, 8, 1)).astype(np.uint8)
    student = load_student_folder(tmp_path)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(pixels))["logits"].values.numpy()
    tolerance = {"float32": 0.0, "float16": 2e-3, "bfloat16": 2e-2}[weights]
    assert np.abs(student.logits(pixels) - wanted).max() <= tolerance
    assert student.predict(pixels) == [("no", "yes")[index] for index in student.logits(pixels).argmax(-1)]
    assert np.allclose(student.probabilities(pixels).sum(-1), 1)
    assert np.array_equal(student.logits(pixels[..., 0]), student.logits(pixels))


def test_half_precision_halves_the_bytes(tmp_path: Path) -> None:
    model = saved("mlp", hidden=[64])
    for weights in ("float32", "float16"):
        save_model(tmp_path / weights, model, model.build(), weights)
    full, half = ((tmp_path / weights / "weights.safetensors").stat().st_size for weights in ("float32", "float16"))
    assert 0.45 < half / full < 0.55


def test_a_flipped_byte_in_the_weights_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path, saved(), saved().build())
    content = bytearray((tmp_path / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(content)
    with pytest.raises(Corrupt, match=r"weights.safetensors: sha256 is .*, model.json says"):
        load_network(tmp_path)


def test_a_folder_without_a_model_and_a_newer_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model.json"):
        load_network(tmp_path)
    (tmp_path / "model.json").write_text('{"format": 9}')
    with pytest.raises(FormatError, match="has format 9, this release reads 1"):
        load_network(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(Corrupt, match="is not JSON"):
        load_network(tmp_path)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((2, 7, 8, 1), np.uint8), r"inputs have shape \[2, 7, 8, 1\], wanted \[N, 8, 8, 1\]"),
        (np.full((2, 8, 8, 1), 0.5), "wanted whole numbers in 0..16: raw pixels, not scaled ones"),
        (np.full((2, 8, 8, 1), 200), "hold int64 values in 200..200, wanted whole numbers in 0..16"),
        (np.full((2, 8, 8, 1), "a"), "inputs have type <U1, wanted numbers"),
    ],
)
def test_inputs_of_another_form_are_refused(tmp_path: Path, inputs: np.ndarray, message: str) -> None:  # type: ignore[type-arg]
    save_model(tmp_path, saved(), saved().build())
    with pytest.raises(ModelError, match=message):
        load_student_folder(tmp_path).logits(inputs)


def test_non_finite_features_are_refused(tmp_path: Path) -> None:
    model = saved("mlp", FEATURES)
    save_model(tmp_path, model, model.build())
    with pytest.raises(ModelError, match="NaN or infinite"):
        load_student_folder(tmp_path).logits([[1.0, float("nan"), 0.0]])


USERS_MODEL = "from torch import nn\ndef make(shape, classes, *, width=4):\n    return nn.Linear(shape[0], classes)\n"


def test_a_users_own_model_is_keyed_by_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_own_model.py").write_text(USERS_MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    name = "import:users_own_model:make"
    model = saved(name, FEATURES, width=8)
    save_model(tmp_path / "saved", model, model.build())
    assert load_student_folder(tmp_path / "saved").logits([[1.0, 0.0, 0.0]]).shape == (1, 2)
    before = model_source(name)
    (tmp_path / "users_own_model.py").write_text(USERS_MODEL + "# changed\n")
    assert model_source(name) != before
    with pytest.raises(ModelError, match="was saved with source"):
        load_network(tmp_path / "saved")
    sys.modules.pop("users_own_model", None)


def test_a_model_folder_holds_no_code(tmp_path: Path) -> None:
    save_model(tmp_path, saved(), saved().build())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "weights.safetensors"]
    assert json.loads((tmp_path / "model.json").read_text())["class_names"] == ["no", "yes"]
