"""One teacher, one student, one data set and one order of batches, for the platform and for a peer beside it.

Images of Fashion-MNIST from a folder of IDX files, or the 8x8 digits that come with scikit-learn.
"""

from __future__ import annotations

import ctypes
import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loss_pairs import made_tensors
from made import make_cache
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from step import step_seconds
from torch import Tensor

from distill_platform.artifact import Artifact, Draft, produce
from distill_platform.cache import Encoding
from distill_platform.data.columns import write_columns
from distill_platform.data.examples import Examples, open_split
from distill_platform.data.loader import Loader
from distill_platform.data.order import GlobalOrder
from distill_platform.data.schema import InputSpec, Schema
from distill_platform.data.views import Views
from distill_platform.models import Network, Standardize, build_network
from distill_platform.objective import Objective
from distill_platform.storage import Storage
from distill_platform.tasks import TASKS
from distill_platform.train import LiveTeacher, Teacher, Trainer, TrainSettings, open_teacher

NUM_CLASSES = 10
VIEWS = Views.of(1, 0, [])
LAYER = "7"
"""Of teacher and student, maps of one size: after the second block of `cnn`."""

METHODS: dict[str, dict[str, Any]] = {
    "soft_targets": {"task": {"weight": 0.5}, "soft_targets": {"weight": 0.5, "temperature": 4.0}},
    "attention": {
        "task": {"weight": 0.5},
        "soft_targets": {"weight": 0.5, "temperature": 4.0},
        "attention": {"weight": 10.0, "layers": {LAYER: LAYER}},
    },
}


@dataclass(frozen=True)
class Sizes:
    """How much of everything. repeats: epochs of each arm whose steps are timed."""

    train: int = 9_600
    teacher_channels: tuple[int, ...] = (16, 32, 64)
    student_channels: tuple[int, ...] = (8, 16)
    batch_size: int = 128
    teacher_epochs: int = 8
    epochs: int = 8
    num_seeds: int = 3
    repeats: int = 5
    lr: float = 0.05
    momentum: float = 0.9


Images = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True)
class Source:
    """Images `[N, H, W]` and labels: train, val and test; `high` is the largest value of a pixel."""

    name: str
    splits: Mapping[str, Images]
    high: float


@dataclass(frozen=True)
class Problem:
    """What both sides are given. Test inputs `[N, H, W, 1]` raw."""

    sizes: Sizes
    data: Artifact
    cache: Artifact
    examples: Mapping[str, Examples]
    test_inputs: Tensor
    test_labels: Tensor
    teacher: Network

    def student(self, seed: int) -> Network:
        """The student of a seed before its first step."""
        return _network(self.sizes.student_channels, self.examples["train"].schema, seed)

    def trainer(self, method: str, seed: int, is_cached: bool, epochs: int | None = None) -> Trainer:
        """The platform's own, with a cached or a live teacher."""
        loader = Loader(self.examples["train"], VIEWS, self.sizes.batch_size, seed)
        settings = _settings(self.sizes, epochs or self.sizes.epochs, self.sizes.lr, seed)
        objective = Objective.of(TASKS["classification"], METHODS[method])
        teachers = {split: self._teacher(split, objective, is_cached) for split in self.examples}
        return Trainer(self.student(seed), objective, loader, self.examples["val"], settings, teachers)

    def train(self, method: str, seed: int) -> tuple[Tensor, float]:
        """A student's answers to the test inputs after its last epoch, and the mean loss of its first."""
        trainer = self.trainer(method, seed, is_cached=method == "soft_targets")
        while not trainer.is_finished:
            trainer.run_epoch()
        return self.answers(trainer.network), float(trainer.reports[0]["train_loss"])

    def step_arm(self, method: str, is_cached: bool) -> Callable[[], float]:
        """A call that gives the mean CPU-seconds of a step over one more epoch."""
        trainer = self.trainer(method, 0, is_cached, epochs=self.sizes.repeats + 1)
        return lambda: step_seconds(trainer)

    @torch.inference_mode()
    def answers(self, network: Network) -> Tensor:
        """The most probable class of each test input `[N]`."""
        network.eval()
        return torch.cat([network(part)["logits"].values.argmax(-1) for part in self.test_inputs.split(128)])

    def _teacher(self, split: str, objective: Objective, is_cached: bool) -> Teacher:
        examples = self.examples[split]
        if is_cached:
            return open_teacher(self.cache, self.data, split, examples, VIEWS)
        return LiveTeacher(self.teacher, "live", objective.teacher_layers, examples.inputs[:2])


def keep_freed_memory() -> None:
    """Tell glibc to hand freed memory to the next step instead of the system.

    Whether it does so by itself depends on what was freed before: one arm's step took 11 ms in one run and 17 in the
    next, the rest being page faults. The peer does the same.
    """
    libc = ctypes.CDLL(None)
    for option, size_bytes in ((-3, 1 << 25), (-1, 1 << 30)):  # M_MMAP_THRESHOLD at its most, M_TRIM_THRESHOLD
        libc.mallopt(option, size_bytes)


def make_problem(workspace: Storage, source: Source, sizes: Sizes) -> Problem:
    """Data and cache laid down, and a teacher trained on the labels."""
    data = _lay_down(workspace, source)
    examples = {split: open_split(data, split) for split in ("train", "val")}
    teacher = _trained_teacher(examples, sizes)

    @torch.inference_mode()
    def predict(inputs: Tensor) -> dict[str, Tensor]:
        return {"logits": teacher(inputs)["logits"].values}

    cache = make_cache(workspace, data, VIEWS, predict, Encoding("dense", NUM_CLASSES))
    images, labels = source.splits["test"]
    inputs = torch.from_numpy(images)[..., None]
    return Problem(sizes, data, cache, examples, inputs, torch.from_numpy(labels), teacher)


def hand_over(problem: Problem, folder: Path) -> None:
    """The files that `peers/torchdistill_worker.py` reads: preprocessed inputs, weights and orders, plain tensors."""
    sizes, train = problem.sizes, problem.examples["train"]
    tensors = {
        "inputs": problem.teacher.preprocess(train.inputs).values,
        "labels": train.labels.long(),
        "test_inputs": problem.teacher.preprocess(problem.test_inputs).values,
        "teacher_logits": _logits(problem.teacher, train.inputs),
    }
    tensors |= {f"teacher.{name}": value for name, value in problem.teacher.body.state_dict().items()}
    for seed in range(sizes.num_seeds):
        weights = problem.student(seed).body.state_dict()
        tensors |= {f"student.{seed}.{name}": value for name, value in weights.items()}
        orders = [next(GlobalOrder().windows(len(train), seed, epoch)).rows for epoch in range(sizes.epochs)]
        tensors[f"order.{seed}"] = torch.stack(orders)
    torch.save({name: value.clone() for name, value in tensors.items()}, folder / "problem.pt")
    torch.save(made_tensors(), folder / "tensors.pt")
    height, width, _ = train.schema.input.shape
    given = {
        **vars(sizes),
        "teacher": sizes.teacher_channels,
        "student": sizes.student_channels,
        "num_classes": NUM_CLASSES,
        "layer": LAYER,
        "layer_pixels": (height // 4) * (width // 4),
        "temperature": METHODS["soft_targets"]["soft_targets"]["temperature"],
        "attention_weight": METHODS["attention"]["attention"]["weight"],
    }
    (folder / "problem.json").write_text(json.dumps(given))


def fashion_mnist(folder: Path, num_train: int) -> Source:
    """The first images of the official train split, the 512 after them for validation, all of the official test."""
    train, test = (_idx_images(folder, part) for part in ("train", "t10k"))
    return Source("fashion-mnist", {**_cut(train, num_train, 512), "test": test}, 255)


def digits() -> Source:
    """1,024 images for training, 128 for validation, 640 for testing."""
    loaded = load_digits()
    rows = np.random.default_rng(0).permutation(len(loaded.target))
    images, labels = loaded.images.astype(np.uint8)[rows], loaded.target.astype(np.int64)[rows]
    return Source("digits", {**_cut((images, labels), 1024, 128), "test": (images[1152:1792], labels[1152:1792])}, 16)


def _cut(images: Images, num_train: int, num_val: int) -> dict[str, Images]:
    values, labels = images
    rows = {"train": slice(0, num_train), "val": slice(num_train, num_train + num_val)}
    return {split: (values[each], labels[each]) for split, each in rows.items()}


def _idx_images(folder: Path, part: str) -> Images:
    images = np.frombuffer(gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return images.reshape(-1, 28, 28).copy(), labels.astype(np.int64)


def _lay_down(workspace: Storage, source: Source) -> Artifact:
    side = source.splits["train"][0].shape[1]
    spec = InputSpec("image", (side, side, 1), "uint8", 0, source.high)
    rng = np.random.default_rng(0)

    def body(draft: Draft) -> None:
        for split in ("train", "val"):
            images, labels = source.splits[split]
            keys = rng.integers(0, 256, (len(labels), 16), np.uint8)
            columns = {"key": keys, "input": images[..., None], "label": labels}
            write_columns(draft.path(f"splits/{split}-00000.parquet"), columns)
        pixels = source.splits["train"][0]
        class_names = tuple(str(number) for number in range(NUM_CLASSES))
        schema = Schema(spec, class_names, {}, mean=(float(pixels.mean()),), std=(float(pixels.std()),))
        draft.write_json("schema.json", schema.to_json())

    return produce(workspace, "prepare", 1, {"source": source.name}, {}, body)[0]


def _trained_teacher(examples: Mapping[str, Examples], sizes: Sizes) -> Network:
    train = examples["train"]
    network = _network(sizes.teacher_channels, train.schema, seed=1000)
    objective = Objective.of(TASKS["classification"], {"task": {"weight": 1.0}})
    loader = Loader(train, VIEWS, sizes.batch_size, seed=1000)
    settings = _settings(sizes, sizes.teacher_epochs, sizes.lr, seed=1000)
    trainer = Trainer(network, objective, loader, examples["val"], settings)
    while not trainer.is_finished:
        trainer.run_epoch()
    return network.eval()


def _network(channels: tuple[int, ...], schema: Schema, seed: int) -> Network:
    preprocess = Standardize.of(schema)
    return build_network("cnn", {"channels": list(channels)}, schema.input, NUM_CLASSES, preprocess, seed)


def _settings(sizes: Sizes, epochs: int, lr: float, seed: int) -> TrainSettings:
    return TrainSettings(
        epochs=epochs,
        batch_size=sizes.batch_size,
        optimizer="sgd",
        lr=lr,
        weight_decay=0.0,
        momentum=sizes.momentum,
        schedule="cosine",
        warmup_fraction=0.0,
        clip_norm=None,
        patience_epochs=None,
        precision="float32",
        seed=seed,
    )


@torch.inference_mode()
def _logits(network: Network, inputs: Tensor) -> Tensor:
    return torch.cat([network(part)["logits"].values for part in inputs.split(128)])
