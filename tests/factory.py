"""Small real artifacts for tests: data that a small student can learn in a second."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill_platform.artifact import Artifact, Draft, produce
from distill_platform.data.columns import write_columns
from distill_platform.data.schema import InputSpec, Schema
from distill_platform.data.views import Views
from distill_platform.fingerprint import sha256_bytes
from distill_platform.storage import Storage
from distill_platform.teacher import train_teacher
from distill_platform.train import TrainSettings

CLASSES = ("a", "b", "c")
VIEWS = Views.of(2, 0, [{"name": "noise", "std": 0.05}])
ONE_VIEW = Views.of(1, 0, [])


def settings(**changed: Any) -> TrainSettings:
    """Training for a few short epochs."""
    given = {
        "epochs": 3,
        "batch_size": 32,
        "optimizer": "adamw",
        "lr": 0.01,
        "weight_decay": 1e-4,
        "momentum": 0.9,
        "schedule": "cosine",
        "warmup_fraction": 0.1,
        "clip_norm": 1.0,
        "patience_epochs": None,
        "precision": "float32",
        "seed": 0,
    }
    return TrainSettings(**{**given, **changed})


def make_data(workspace: Storage, seed: int = 0, sizes: tuple[int, int, int] = (200, 60, 80)) -> Artifact:
    """Three overlapping blobs in eight features, in the layout that `prepare` writes."""

    def body(draft: Draft) -> None:
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(3, 8))
        statistics: dict[str, Any] = {}
        for split, size in zip(("train", "val", "test"), sizes, strict=True):
            labels = rng.integers(0, 3, size)
            inputs = (centres[labels] + rng.normal(scale=0.8, size=(size, 8))).astype(np.float32)
            ids = [f"{split}-{row}" for row in range(size)]
            keys = np.array([list(bytes.fromhex(sha256_bytes(id.encode())[:32])) for id in ids], dtype=np.uint8)
            path = draft.path(f"splits/{split}-00000.parquet")
            write_columns(
                path, {"key": keys, "id": ids, "group": ids, "label": labels.astype(np.int64), "input": inputs}
            )
            if split == "train":
                statistics = {"mean": tuple(inputs.mean(0).tolist()), "std": tuple(inputs.std(0).tolist())}
                low, high = float(inputs.min()), float(inputs.max())
                ranges = tuple((inputs.max(0) - inputs.min(0)).tolist())
        counts = {
            split: dict.fromkeys(CLASSES, size // 3)
            for split, size in zip(("train", "val", "test"), sizes, strict=True)
        }
        names = tuple(f"f{index}" for index in range(8))
        spec = InputSpec("features", (8,), "float32", low, high, names, ranges)
        draft.write_json("schema.json", Schema(spec, CLASSES, counts, **statistics).to_json())

    return produce(workspace, "prepare", 1, {"seed": seed, "sizes": list(sizes)}, {}, body)[0]


def make_teacher(workspace: Storage, data: Artifact, views: Views = VIEWS) -> Artifact:
    """A small trained teacher."""
    return produce(
        workspace,
        "teacher",
        1,
        {},
        {"data": data},
        lambda draft: train_teacher(draft, "mlp", {"hidden": [32]}, data, views, "classification", settings()),
    )[0]
