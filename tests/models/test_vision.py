"""Models of timm and torchvision: theirs, with random weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill_platform.data.schema import InputSpec, Schema
from distill_platform.errors import ModelError
from distill_platform.models import SavedModel, load_student_folder, preprocess_for, save_model
from distill_platform.models.builders import check_arguments, check_body
from distill_platform.models.listing import list_layers

pytestmark = pytest.mark.usefixtures("vision_libraries")

MODELS = [
    ("timm:test_vit", {"img_size": 32, "patch_size": 8}),
    ("timm:test_resnet", {}),
    ("torchvision:squeezenet1_1", {}),
]


def schema(channels: int) -> Schema:
    form = InputSpec("image", (32, 32, channels), "uint8", 0, 255)
    return Schema(form, ("a", "b", "c"), {}, (100.0,) * channels, (50.0,) * channels)


def saved(name: str, channels: int = 1, **args: Any) -> SavedModel:
    data = schema(channels)
    return SavedModel(name, args, data.input, data.class_names, preprocess_for(name, args, data))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("name", "args"), MODELS)
def test_a_librarys_model_is_built_checked_listed_saved_and_read(
    name: str, args: dict[str, Any], channels: int, tmp_path: Path
) -> None:
    model = saved(name, channels, **args)
    check_body(name, args, model.input, 3, model.preprocess, per_token=False)
    assert all(layer.num_parameters >= 0 for layer in list_layers(model))
    network = model.build(1).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, channels)).astype(np.uint8)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(pixels))["logits"].values
    assert wanted.shape == (2, 3)
    save_model(tmp_path, model, network)
    assert json.loads((tmp_path / "model.json").read_text())["model"]["args"] == {**args, "pretrained": False}
    assert np.allclose(load_student_folder(tmp_path).logits(pixels), wanted.numpy(), atol=1e-5)


def test_grey_images_are_shown_to_torchvision_as_three_equal_colours() -> None:
    grey, colours = (
        saved("torchvision:squeezenet1_1", 1).build(1).eval(),
        saved("torchvision:squeezenet1_1", 3).build(1),
    )
    pixels = torch.randint(0, 255, (2, 32, 32, 1), dtype=torch.uint8)
    wanted = colours.eval()(pixels.expand(-1, -1, -1, 3))["logits"].values
    assert torch.allclose(grey(pixels)["logits"].values, wanted, atol=1e-5)


def test_models_with_auxiliary_logits_give_those_that_count() -> None:
    torchvision = pytest.importorskip("torchvision")
    from distill_platform.models.vision import _logits_alone

    outputs = torchvision.models.GoogLeNetOutputs(torch.ones(2, 3), torch.zeros(2, 3), torch.zeros(2, 3))
    assert torch.equal(_logits_alone(torch.nn.Identity(), (), outputs), torch.ones(2, 3))


@pytest.mark.parametrize("name", ["timm:test_vit", "torchvision:resnet18"])
def test_pretrained_models_apply_the_statistics_that_they_were_trained_with(name: str) -> None:
    found = preprocess_for(name, {"pretrained": True}, schema(3))
    assert found.mean == pytest.approx((0.485 * 255, 0.456 * 255, 0.406 * 255) if "resnet" in name else (127.5,) * 3)
    assert preprocess_for(name, {}, schema(3)).mean == (100.0,) * 3


def test_pretrained_weights_fit_all_but_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    weights = torchvision.models.squeezenet1_1(weights=None).state_dict()
    asked: dict[str, Any] = {}

    def get_state_dict(self: object, **options: Any) -> dict[str, torch.Tensor]:
        asked.update(options)
        return weights

    monkeypatch.setattr(torchvision.models.SqueezeNet1_1_Weights, "get_state_dict", get_state_dict)
    state = saved("torchvision:squeezenet1_1", 3, pretrained=True).build().body.state_dict()
    assert asked["weights_only"]
    assert asked["check_hash"]
    differing = {name for name in state if not torch.equal(state[name], weights[name][: len(state[name])])}
    assert differing == {"classifier.1.weight"}


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("timm:resnet_18", {}, "timm has no model of this name; close:.*resnet"),
        ("torchvision:resnet19", {}, "by no model of this name; close: .*resnet18"),
        ("timm:hf-hub:someone/model", {}, "what the hub has is not pinned by it"),
        ("timm:test_resnet", {"patch_size": 3}, "model 'timm:test_resnet' with {'patch_size': 3}"),
    ],
)
def test_other_names_and_arguments_are_refused(name: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        saved(name, **args).build()


def test_models_of_images_refuse_features_and_take_their_librarys_arguments() -> None:
    features = Schema(InputSpec("features", (3,), "float32", 0, 1), ("a",), {}, (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(ModelError, match="takes image inputs, the data has features inputs"):
        preprocess_for("timm:test_vit", {}, features)
    check_arguments("timm:test_vit", {"img_size": 32})


@pytest.mark.slow
def test_no_library_is_imported_before_it_is_named() -> None:
    libraries = ("transformers", "timm", "torchvision", "tokenizers")
    code = f"import sys, distill_platform.models; print([name for name in {libraries} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
