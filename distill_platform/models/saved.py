"""The model folder at rest, and the Student that predicts from it.

    model.json            format, builder and arguments, input signature, preprocessing, class names, weights' hash
    weights.safetensors   weights and buffers, nothing else
    tokenizer.json        of models with a tokenizer of their own; its hash is in model.json

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

from distill_platform.data.schema import InputSpec, Schema
from distill_platform.errors import Corrupt, FormatError, ModelError
from distill_platform.fingerprint import sha256_bytes
from distill_platform.models.builders import model_source, preprocess_for, saved_args
from distill_platform.models.network import Calibration, Network, build_network, inference_batch_size
from distill_platform.models.preprocess import Preprocess, preprocess_from_json
from distill_platform.models.raw_inputs import raw_inputs

MODEL_FORMATS = (1, 2)
"""Those that are read. A model with `calibration` is written as 2, because a release that knows 1 alone would leave it
out; all others as 1."""
MODEL_FILE, WEIGHTS_FILE = "model.json", "weights.safetensors"
WEIGHT_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class SavedModel:
    """What model.json says, weights apart.

    cache: digest of the teacher's outputs that it learned from, if it did. calibration: what is done to its logits.
    """

    name: str
    args: Mapping[str, Any]
    input: InputSpec
    class_names: tuple[str, ...]
    preprocess: Preprocess
    task: str = "classification"
    cache: str | None = None
    calibration: Calibration | None = None

    @classmethod
    def for_data(cls, name: str, args: Mapping[str, Any], schema: Schema, task: str = "classification") -> SavedModel:
        """A model that is to be trained on this data. Raises ModelError as `preprocess_for`."""
        return cls(name, args, schema.input, schema.class_names, preprocess_for(name, args, schema), task)

    def build(self, seed: int = 0) -> Network:
        """A network of this kind with weights drawn from `seed`."""
        given = (self.name, self.args, self.input, len(self.class_names), self.preprocess)
        return build_network(*given, seed, self.calibration)


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
    description: dict[str, Any] = {
        "format": 1 if model.calibration is None else 2,
        "task": model.task,
        "model": {
            "name": model.name,
            "args": saved_args(model.name, model.args, network.body),
            "source": _needed_source(model.name),
        },
        "input": asdict(model.input),
        "class_names": list(model.class_names),
        "preprocess": model.preprocess.to_json(),
        "weights": {"file": WEIGHTS_FILE, "sha256": sha256_bytes(data), "dtype": weights},
    }
    if model.preprocess.files:
        description["files"] = {name: sha256_bytes(content) for name, content in model.preprocess.files.items()}
        for name, content in model.preprocess.files.items():
            (folder / name).write_bytes(content)
    if model.cache is not None:
        description["cache"] = model.cache
    if model.calibration is not None:
        description["calibration"] = model.calibration._asdict()
    (folder / MODEL_FILE).write_text(json.dumps(description, indent=1, sort_keys=True))


def load_network(folder: Path) -> tuple[SavedModel, Network]:
    """The model of a folder, in eval mode, weights in float32.

    Raises ModelError if it is no model folder or needs another module source, FormatError for another version, and
    Corrupt if its files are not those that were saved.
    """
    model = read_model(folder)
    data = _read_file(folder, WEIGHTS_FILE, _read_description(folder)["weights"]["sha256"])
    network = model.build()
    _load_weights(network, data, folder)
    return model, network.eval()


def read_model(folder: Path) -> SavedModel:
    """What a model folder says, its weights left where they are; raises as `load_network` does."""
    description = _read_description(folder)
    files = {name: _read_file(folder, name, sha256) for name, sha256 in description.get("files", {}).items()}
    name, source = description["model"]["name"], description["model"]["source"]
    if source is not None and source != (here := _needed_source(name)):
        raise ModelError(
            f"{folder}: {name} was saved with source {source[:12]}, the one importable here is {str(here)[:12]}; "
            "put the module's old version on the path"
        )
    given = description["input"].items()
    stored: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given}
    return SavedModel(
        name=name,
        args=description["model"]["args"],
        input=InputSpec(**stored),
        class_names=tuple(description["class_names"]),
        preprocess=preprocess_from_json(description["preprocess"], files),
        task=description["task"],
        cache=description.get("cache"),
        calibration=_calibration(description.get("calibration")),
    )


def model_files(folder: Path) -> list[str]:
    """The names of a model folder's files, as its model.json has them; raises as `load_network` does, and Corrupt for
    a name that leads out of the folder.
    """
    description = _read_description(folder)
    names = [MODEL_FILE, description["weights"]["file"], *description.get("files", {})]
    if odd := [name for name in names if Path(name).name != name]:
        raise Corrupt(f"{folder / MODEL_FILE} names the file {odd[0]!r}, wanted plain names; fetch the model again")
    return names


def _read_file(folder: Path, name: str, wanted: str) -> bytes:
    data = (folder / name).read_bytes()
    if (got := sha256_bytes(data)) != wanted:
        raise Corrupt(
            f"{folder / name}: sha256 is {got[:12]}, model.json says {wanted[:12]}; the bytes changed after they were "
            "written. Fetch the model again"
        )
    return data


def _needed_source(name: str) -> str | None:
    """Of the module that has to be here to load the model again; of `import:` alone."""
    return model_source(name) if name.startswith("import:") else None


def _load_weights(network: Network, data: bytes, folder: Path) -> None:
    try:
        state: dict[str, Tensor] = load_tensors(data)
        network.load_state_dict(
            {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
        )
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"{folder / WEIGHTS_FILE}: the weights do not fit the model of model.json: {error}") from error


def _calibration(stored: Mapping[str, Any] | None) -> Calibration | None:
    if stored is None:
        return None
    bias = stored["bias"]
    return Calibration(stored["scale"], tuple(bias) if bias is not None else None)


def _read_description(folder: Path) -> dict[str, Any]:
    path = folder / MODEL_FILE
    try:
        description = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"{folder} holds no {MODEL_FILE}; wanted a model folder that the platform saved") from None
    except ValueError as error:
        raise Corrupt(f"{path} is not JSON ({error}); fetch the model again") from error
    if not isinstance(description, dict) or description.get("format") not in MODEL_FORMATS:
        got = description.get("format") if isinstance(description, dict) else description
        known = " and ".join(map(str, MODEL_FORMATS))
        raise FormatError(f"{path} has format {got!r}, this release reads {known}; use the release that wrote it")
    return description


class Student:
    """A saved model that predicts from raw inputs.

    Raw inputs are arrays `[N, *shape]`, as the data has them, or: of text a list of strings, which are cut at the
    model's length; of audio a list of sounds of any length, int16 or real numbers from -1 to 1, cut likewise; of tokens
    a list of lists of ids. ModelError is raised for others.
    """

    def __init__(self, model: SavedModel, network: Network) -> None:
        self.model = model
        self.network = network.eval()
        self.input = model.input
        self.class_names = model.class_names

    def logits(self, inputs: Any) -> np.ndarray[Any, Any]:
        """Raw inputs -> logits `[N, C]` float32; of tokens `[N, T, V]`, zeros behind the end of a sequence."""
        raw = raw_inputs(inputs, self.input, len(self.class_names))
        positions = self.input.shape if self.input.kind == "tokens" else ()
        found = np.empty((len(raw), *positions, len(self.class_names)), np.float32)
        with torch.inference_mode():
            size = inference_batch_size(torch.device("cpu"))
            for start in range(0, len(raw), size):
                batch = raw[start : start + size]
                values, mask = self.network(batch)["logits"]
                counted = values if mask is None else values.masked_fill(~mask[..., None], 0.0)
                found[start : start + size] = counted.float().numpy()
        return found

    def probabilities(self, inputs: Any) -> np.ndarray[Any, Any]:
        """As `logits`, softened at T = 1: float32 that sum to one over the last axis."""
        return torch.from_numpy(self.logits(inputs)).softmax(-1).numpy()

    def predict(self, inputs: Any) -> list[str]:
        """The most probable class name of each input; of tokens the most probable next one, behind the last."""
        logits = self.logits(inputs)
        if self.input.kind == "tokens":
            ids = raw_inputs(inputs, self.input, len(self.class_names)).numpy()
            lengths = (ids != self.input.padding).sum(1)
            if not lengths.all():
                raise ModelError(f"input {int(lengths.argmin())} holds no token, and nothing comes before the first")
            logits = logits[np.arange(len(logits)), lengths - 1]
        return [self.class_names[index] for index in logits.argmax(-1)]


def load_student_folder(folder: Path) -> Student:
    """The Student of a model folder on this machine; raises as `load_network` does."""
    return Student(*load_network(folder))
