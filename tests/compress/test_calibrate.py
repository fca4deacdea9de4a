"""What ships is calibrated wherever it is loaded: on the validation split alone, on the weights as they are stored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from distill_platform.compress import calibrate_model, store_weights
from distill_platform.compress.calibrate import check_shares, fitted
from distill_platform.data.examples import Examples
from distill_platform.data.schema import InputSpec, Schema
from distill_platform.errors import DataError, FormatError, ModelError
from distill_platform.evaluate.metrics import METRICS
from distill_platform.models import (
    Calibration,
    SavedModel,
    Standardize,
    load_network,
    load_student_folder,
    read_model,
    save_model,
)
from distill_platform.models.capture import output_layer

CLASSES = ("a", "b", "c")
SHARES = torch.tensor([0.5, 0.3, 0.2])
FORM = InputSpec("features", (3,), "float32", -1, 1, CLASSES, (2.0,) * 3)
SCHEMA = Schema(FORM, CLASSES, {}, (0.0,) * 3, (1.0,) * 3)


def examples(num: int, seed: int) -> Examples:
    """Inputs that are the log-odds of their labels: an identity layer would be calibrated."""
    draw = torch.Generator().manual_seed(seed)
    inputs = 1.5 * torch.randn(num, 3, generator=draw) + SHARES.log()
    labels = torch.multinomial(inputs.softmax(-1), 1, generator=draw).squeeze(1)
    return Examples(SCHEMA, torch.zeros(num, 16, dtype=torch.uint8), inputs, labels)


def student(folder: Path, sureness: float, bias: tuple[float, ...] = (0.0, 0.0, 0.0)) -> Path:
    """A model that says the log-odds times `sureness`, and `bias`."""
    model = SavedModel("mlp", {"hidden": []}, FORM, CLASSES, Standardize.of(SCHEMA))
    network = model.build()
    (linear,) = (module for module in network.body.modules() if isinstance(module, torch.nn.Linear))
    with torch.no_grad():
        linear.weight.copy_(sureness * torch.eye(3))
        linear.bias.copy_(torch.tensor(bias))
    save_model(folder, model, network)
    return folder


def figure(name: str, folder: Path, test: Examples) -> float:
    logits = load_student_folder(folder).logits(test.inputs.numpy())
    return float(METRICS[name].function(test.labels.numpy(), logits))


def test_an_overconfident_student_is_as_sure_as_it_is_right_and_predicts_the_same(tmp_path: Path) -> None:
    validation, test = examples(2000, 1), examples(4000, 2)
    before = student(tmp_path / "before", 4.0)
    store_weights(before, tmp_path / "after", "float16")
    found = calibrate_model(tmp_path / "after", validation, "float16", scale=True, class_bias="none")
    assert found.scale == pytest.approx(1 / 4, rel=0.1)
    assert found.bias is None
    errors = [figure("expected_calibration_error", folder, test) for folder in (before, tmp_path / "after")]
    assert errors[0] > 0.1 > 0.03 > errors[1]
    inputs = test.inputs.numpy()
    assert load_student_folder(tmp_path / "after").predict(inputs) == load_student_folder(before).predict(inputs)
    model, network = load_network(tmp_path / "after")
    assert model.calibration == network.calibration == found
    assert json.loads((tmp_path / "after" / "model.json").read_text())["weights"]["dtype"] == "float16"


@pytest.mark.parametrize("class_bias", ["auto", {"a": 0.5, "b": 0.3, "c": 0.2}])
@pytest.mark.parametrize("scale", [True, False])
def test_a_class_that_was_left_out_is_predicted_again(
    tmp_path: Path, class_bias: str | dict[str, float], scale: bool
) -> None:
    validation, test = examples(2000, 1), examples(4000, 2)
    folder = student(tmp_path, 3.0 if scale else 1.0, (0.0, 0.0, -30.0))
    assert "c" not in load_student_folder(folder).predict(test.inputs.numpy())
    before = figure("accuracy", folder, test)
    calibrate_model(folder, validation, "float32", scale, class_bias)
    after = load_student_folder(folder)
    assert figure("accuracy", folder, test) > before + 0.05
    probabilities = after.probabilities(validation.inputs.numpy()).mean(0)
    wanted = torch.bincount(validation.labels) / 2000 if class_bias == "auto" else SHARES
    assert probabilities == pytest.approx(wanted.numpy(), abs=1e-3)
    assert figure("expected_calibration_error", folder, test) < 0.05


def test_logits_are_scaled_then_shifted_and_padding_has_no_say() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 4, 3, generator=draw)
    labels = torch.randint(0, 3, (200, 4), generator=draw)
    labels[:, 3:] = -1
    with_padding = fitted(logits, labels, scale=True, priors=None)
    assert with_padding == fitted(logits[:, :3], labels[:, :3], scale=True, priors=None)


def test_a_calibrated_model_has_a_format_that_older_releases_refuse(tmp_path: Path) -> None:
    folder = student(tmp_path, 2.0)
    assert json.loads((folder / "model.json").read_text())["format"] == 1
    model, network = load_network(folder)
    plain = load_student_folder(folder).logits(np.eye(3, dtype=np.float32))
    calibrated = SavedModel(**{**vars(model), "calibration": Calibration(0.5, (0.0, 1.0, -1.0))})
    save_model(folder, calibrated, network)
    stored = json.loads((folder / "model.json").read_text())
    assert (stored["format"], stored["calibration"]) == (2, {"scale": 0.5, "bias": [0.0, 1.0, -1.0]})
    assert read_model(folder) == calibrated
    logits = load_student_folder(folder).logits(np.eye(3, dtype=np.float32))
    assert logits == pytest.approx(plain * 0.5 + np.array([0.0, 1.0, -1.0]), abs=1e-6)
    (folder / "model.json").write_text(json.dumps({**stored, "format": 3}))
    with pytest.raises(FormatError, match="has format 3, this release reads 1 and 2"):
        read_model(folder)


def test_codec_head_does_not_take_a_calibrated_teacher(tmp_path: Path) -> None:
    folder, sample = student(tmp_path, 2.0), examples(8, 0).inputs
    assert torch.equal(output_layer(load_network(folder)[1], sample).weight, 2 * torch.eye(3))
    calibrate_model(folder, examples(500, 1), "float32", scale=True, class_bias="none")
    with pytest.raises(ModelError, match="another operation after it"):
        output_layer(load_network(folder)[1], sample)


def test_shares_of_other_classes_and_a_split_without_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has shares of a, d; wanted one for each class of the data: a, b, c"):
        check_shares({"a": 0.5, "d": 0.5}, CLASSES)
    folder, validation = student(tmp_path, 2.0), examples(10, 0)
    validation.labels.fill_(-1)
    with pytest.raises(DataError, match="no labels to calibrate on"):
        calibrate_model(folder, validation, "float32", scale=True, class_bias="none")
