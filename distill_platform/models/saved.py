"""The model folder at rest, and the Student that predicts from it.

    model.json            format, builder and arguments, input signature, preprocessing, class names, weights' hash
    weights.safetensors   weights and buffers, nothing else

The folder is enough to predict from raw inputs; it holds no code and no pickle. A model made by `import:` needs that
module again, and the same source.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from distill_platform.data.schema import InputSpec
from distill_platform.errors import Corrupt, FormatError, ModelError
from distill_platform.fingerprint import sha256_bytes
from distill_platform.models.builders import model_source
from distill_platform.models.network import Network, build_network, inference_batch_size
from distill_platform.models.preprocess import Preprocess, preprocess_from_json

MODEL_FORMAT = 1
MODEL_FILE, WEIGHTS_FILE = "model.json", "weights.safetensors"
WEIGHT_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class SavedModel:
    """What model.json says, weights apart. `cache`: digest of the teacher's outputs that it learned from, if it did."""

    name: str
    args: Mapping[str, Any]
    input: InputSpec
    class_names: tuple[str, ...]
    preprocess: Preprocess
    task: str = "classification"
    cache: str | None = None

    def build(self, seed: int = 0) -> Network:
        """A network of this kind with weights drawn from `seed`."""
        return build_network(self.name, self.args, self.input, len(self.class_names), self.preprocess, seed)


def save_model(folder: Path, model: SavedModel, network: Network, weights: str = "float32") -> None:
    """Write the model folder; floating-point weights are stored as `weights` (a name of WEIGHT_TYPES)."""
    folder.mkdir(parents=True, exist_ok=True)
    dtype = WEIGHT_TYPES[weights]
    state = {
        name: (value.to(dtype) if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    data = save_tensors(state)
    (folder / WEIGHTS_FILE).write_bytes(data)
    description = {
        "format": MODEL_FORMAT,
        "task": model.task,
        "model": {"name": model.name, "args": dict(model.args), "source": model_source(model.name)},
        "input": asdict(model.input),
        "class_names": list(model.class_names),
        "preprocess": model.preprocess.to_json(),
        "weights": {"file": WEIGHTS_FILE, "sha256": sha256_bytes(data), "dtype": weights},
    }
    if model.cache is not None:
        description["cache"] = model.cache
    (folder / MODEL_FILE).write_text(json.dumps(description, indent=1, sort_keys=True))


def load_network(folder: Path) -> tuple[SavedModel, Network]:
    """The model of a folder, in eval mode, weights in float32.

    Raises ModelError if it is no model folder or needs another module source, FormatError for another version, and
    Corrupt if the weights are not those that were saved.
    """
    description = _read_description(folder)
    data = (folder / WEIGHTS_FILE).read_bytes()
    wanted = description["weights"]["sha256"]
    if (got := sha256_bytes(data)) != wanted:
        raise Corrupt(
            f"{folder / WEIGHTS_FILE}: sha256 is {got[:12]}, model.json says {wanted[:12]}; the bytes changed after "
            "they were written. Fetch the model again"
        )
    name, source = description["model"]["name"], description["model"]["source"]
    if source is not None and source != (here := model_source(name)):
        raise ModelError(
            f"{folder}: {name} was saved with source {source[:12]}, the one importable here is {str(here)[:12]}; "
            "put the module's old version on the path"
        )
    given = description["input"].items()
    stored: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given}
    model = SavedModel(
        name=name,
        args=description["model"]["args"],
        input=InputSpec(**stored),
        class_names=tuple(description["class_names"]),
        preprocess=preprocess_from_json(description["preprocess"]),
        task=description["task"],
        cache=description.get("cache"),
    )
    network = model.build()
    _load_weights(network, data, folder)
    return model, network.eval()


def _load_weights(network: Network, data: bytes, folder: Path) -> None:
    try:
        state: dict[str, Tensor] = load_tensors(data)
        network.load_state_dict(
            {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        )
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"{folder / WEIGHTS_FILE}: the weights do not fit the model of model.json: {error}") from error


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / MODEL_FILE
    try:
        description = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"{folder} holds no {MODEL_FILE}; wanted a model folder that the platform saved") from None
    except ValueError as error:
        raise Corrupt(f"{path} is not JSON ({error}); fetch the model again") from error
    if not isinstance(description, dict) or description.get("format") != MODEL_FORMAT:
        got = description.get("format") if isinstance(description, dict) else description
        raise FormatError(
            f"{path} has format {got!r}, this release reads {MODEL_FORMAT}; use the release that wrote it"
        )
    return description


class Student:
    """A saved model that predicts from raw inputs."""

    def __init__(self, model: SavedModel, network: Network) -> None:
        self.model = model
        self.network = network.eval()
        self.input = model.input
        self.class_names = model.class_names

    def logits(self, inputs: Any) -> np.ndarray[Any, Any]:
        """Raw inputs `[N, *shape]` -> logits `[N, C]` float32. Raises ModelError for another shape or range."""
        raw = self._checked(inputs)
        with torch.inference_mode():
            batches = raw.split(inference_batch_size(torch.device("cpu")))
            parts = [self.network(batch)["logits"].values.float() for batch in batches]
        return torch.cat(parts).numpy() if parts else np.empty((0, len(self.class_names)), np.float32)

    def probabilities(self, inputs: Any) -> np.ndarray[Any, Any]:
        """As `logits`, softened at T = 1: `[N, C]` float32 that sum to one."""
        return torch.from_numpy(self.logits(inputs)).softmax(-1).numpy()

    def predict(self, inputs: Any) -> list[str]:
        """The most probable class name of each input."""
        return [self.class_names[index] for index in self.logits(inputs).argmax(-1)]

    def _checked(self, inputs: Any) -> Tensor:
        values = np.asarray(inputs)
        shape = tuple(self.input.shape)
        if self.input.kind == "image" and shape[-1] == 1 and values.shape[1:] == shape[:-1]:
            values = values[..., None]
        if values.shape[1:] != shape:
            raise ModelError(f"inputs have shape {list(values.shape)}, wanted [N, {', '.join(map(str, shape))}]")
        if values.dtype.kind not in "buif":
            raise ModelError(f"inputs have type {values.dtype}, wanted numbers")
        if self.input.dtype == "uint8" and len(values):
            self._check_pixels(values)
        if not np.isfinite(values).all():
            raise ModelError("inputs hold NaN or infinite values; wanted finite numbers")
        return torch.from_numpy(np.ascontiguousarray(values.astype(self.input.dtype)))

    def _check_pixels(self, values: np.ndarray[Any, Any]) -> None:
        low, high = float(values.min()), float(values.max())
        if (
            low < self.input.low
            or high > self.input.high
            or (values.dtype.kind == "f" and (values != np.round(values)).any())
        ):
            raise ModelError(
                f"inputs hold {values.dtype} values in {low:g}..{high:g}, wanted whole numbers in "
                f"{self.input.low:g}..{self.input.high:g}: raw pixels, not scaled ones"
            )


def load_student_folder(folder: Path) -> Student:
    """The Student of a model folder on this machine; raises as `load_network` does."""
    return Student(*load_network(folder))
