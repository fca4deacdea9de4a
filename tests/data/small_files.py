"""Small files of every kind that a source may be."""

from __future__ import annotations

import gzip
import json
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from distill_platform.artifact import Artifact, Draft, produce
from distill_platform.data.prepare import prepare_examples
from distill_platform.storage import LocalStorage

HASH = {"by": "hash", "val": 0.25, "test": 0.25}


def tabular(num: int = 120, seed: int = 0) -> dict[str, Any]:
    """Columns of a clean table with three classes."""
    rng = np.random.default_rng(seed)
    return {
        "name": [f"e{number}" for number in range(num)],
        "age": rng.normal(size=num),
        "height": rng.normal(size=num) * 100,
        "kind": [("ant", "bee", "cat")[number % 3] for number in range(num)],
    }


def write_parquet(path: Path, columns: dict[str, Any], row_group_size: int = 50) -> str:
    """A table as a Parquet file; gives its path as text."""
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return str(path)


def write_csv(path: Path, columns: dict[str, Any]) -> str:
    """A table as CSV, gzipped where the name says so; a None is an empty cell."""
    lines = [",".join(columns)]
    lines += [",".join("" if one is None else str(one) for one in row) for row in zip(*columns.values(), strict=True)]
    data = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def write_idx(folder: Path, num_train: int = 80, num_test: int = 40, packed: bool = True) -> str:
    """An IDX folder of random 6 x 5 images in 4 classes."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    for prefix, num in (("train", num_train), ("t10k", num_test)):
        arrays = {
            "images-idx3": rng.integers(0, 256, (num, 6, 5), dtype=np.uint8),
            "labels-idx1": (np.arange(num) % 4).astype(np.uint8),
        }
        for kind, array in arrays.items():
            head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            name = f"{prefix}-{kind}-ubyte"
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(head + array.tobytes()))
            else:
                (folder / name).write_bytes(head + array.tobytes())
    return f"idx:{folder}"


def write_images(folder: Path, per_class: int = 30) -> Path:
    """Grey images of two classes, 7 wide and 5 high, one folder per class."""
    rng = np.random.default_rng(2)
    for name in ("left", "right"):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 256, (5, 7), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02d}.png")
    return folder


def write_wavs(folder: Path, per_class: int = 20, rate: int = 8000) -> Path:
    """Sounds of two classes, 30 to 60 samples each, one folder per class."""
    rng = np.random.default_rng(3)
    for name in ("high", "low"):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            samples = rng.integers(-9000, 9000, rng.integers(30, 61)).astype("<i2")
            write_wav(folder / name / f"{number:02d}.wav", samples, rate)
    return folder


def write_wav(path: Path, samples: np.ndarray, rate: int = 8000) -> None:
    """Samples `[n]` or `[n, channels]`, uint8 or int16, as a WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(samples.itemsize)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


def write_tokenizer(folder: Path, end_of_text: str = "<|end|>", vocab_size: int = 300) -> str:
    """A byte-level BPE tokenizer of the Hugging Face form, trained on a few words; gives its name."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["the cat sat on the mat and the hat", "größer als die Katze 😀"] * 9, trainer)
    tokenizer.enable_truncation(4)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": end_of_text}))
    return f"hf:{folder}"


def prepared(folder: Path, source: str, **options: Any) -> Artifact:
    """A prepared data artifact in a workspace `folder`, split by hash if nothing else is said."""
    given = {"split": HASH, "seed": 0, **options}

    def body(draft: Draft) -> None:
        prepare_examples(draft.folder, source, **given)

    return produce(LocalStorage(folder), "prepare", 1, {}, {"source": "test"}, body)[0]
