"""A cache in pipelines of one's own: as a Ray dataset, and by any Parquet reader as docs/cache_recipe.md says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill_platform.artifact import Artifact, Draft, produce
from distill_platform.cache import CODECS, Encoding, read_dataset
from distill_platform.cache.manifest import MANIFEST_FILE, CachedSplit, Manifest
from distill_platform.data.columns import write_columns
from distill_platform.errors import Corrupt, InputError, NotFound
from distill_platform.storage import LocalStorage, Storage, open_storage

RECIPE = Path(__file__).parents[2] / "docs" / "cache_recipe.md"
RECIPES = dict(re.findall(r"## (\w+)\n\n```python\n(.*?)```", RECIPE.read_text(), re.DOTALL))
NUM_CLASSES, NUM_ROWS = 12, {"train": (50, 30), "val": (20,)}


def make_cache(workspace: Storage, encoding: Encoding) -> tuple[Artifact, dict[bytes, torch.Tensor]]:
    """Random logits in three shards, and what they are by key."""
    logits_of: dict[bytes, torch.Tensor] = {}

    def body(draft: Draft) -> None:
        rng, splits = np.random.default_rng(0), {}
        for split, sizes in NUM_ROWS.items():
            shards = []
            for number, size in enumerate(sizes):
                keys = rng.integers(0, 256, (size, 16), np.uint8)
                keys[0, 8:] = 0  # a key that ends in zeros stays 16 bytes long
                logits = torch.from_numpy(rng.standard_normal((size, NUM_CLASSES), np.float32)).half().float()
                encoded = CODECS[encoding.codec].encode(logits, encoding, np.arange(size, dtype=np.uint64))
                shards.append(f"shards/{split}-{number}.parquet")
                views = np.arange(size, dtype=np.int16) % 2
                write_columns(draft.path(shards[-1]), {"key": keys, "view": views, **encoded})
                logits_of.update({key.tobytes(): row for key, row in zip(keys, logits, strict=True)})
            splits[split] = CachedSplit(sum(sizes), 1, tuple(shards))
        draft.write_json(MANIFEST_FILE, Manifest("teacher", "data", encoding, splits).to_json())

    cache, _ = produce(workspace, "cache", 1, {"codec": encoding.codec}, {}, body)
    return cache, logits_of


def of_split(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {split: sum(row["split"] == split for row in rows) for split in NUM_ROWS}


@pytest.mark.usefixtures("ray_session")
def test_a_dataset_has_every_row_once_with_its_logits(tmp_path: Path) -> None:
    cache, logits_of = make_cache(LocalStorage(tmp_path), Encoding("dense", NUM_CLASSES))
    dataset = read_dataset(cache.uri)
    rows = dataset.take_all()
    assert of_split(rows) == {"train": 80, "val": 20}
    assert {row["key"] for row in rows} == logits_of.keys()
    for row in rows:
        assert row["logits"].dtype == np.float32
        assert np.array_equal(row["logits"], logits_of[row["key"]].numpy())
    assert {row["view"] for row in rows} == {0, 1}
    assert dataset.materialize().num_blocks() == 3


@pytest.mark.usefixtures("ray_session")
def test_a_dataset_of_another_codec_has_the_tensors_of_its_target(tmp_path: Path) -> None:
    cache, logits_of = make_cache(LocalStorage(tmp_path), Encoding("topk", NUM_CLASSES, keep=4))
    for row in read_dataset(cache.uri).take_all():
        wanted = logits_of[row["key"]]
        assert sorted(row["ids"].tolist()) == sorted(wanted.topk(4).indices.tolist())
        kept = wanted[torch.from_numpy(row["ids"].copy())] - wanted.max()
        assert np.allclose(row["logits"], kept.numpy(), atol=0.01)


@pytest.mark.usefixtures("ray_session")
def test_a_damaged_shard_gives_no_rows(tmp_path: Path) -> None:
    cache, _ = make_cache(LocalStorage(tmp_path), Encoding("dense", NUM_CLASSES))
    stored = cache.record["files"]["shards/train-1.parquet"]["path"]
    path = Path(cache.uri) / stored
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Exception, match="the bytes changed after they were written") as raised:
        read_dataset(cache.uri).take_all()
    assert isinstance(raised.value, Corrupt) or Corrupt.__name__ in str(raised.value)


def test_a_place_without_a_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted <workspace>/artifacts/cache/<key>"):
        read_dataset(str(tmp_path))
    with pytest.raises(NotFound, match="no cache is committed there"):
        read_dataset(f"{tmp_path}/artifacts/cache/0123")


def test_a_cache_on_s3_is_opened_by_its_uri(s3_uri: str) -> None:
    from distill_platform.cache import dataset

    cache, logits_of = make_cache(open_storage(s3_uri), Encoding("dense", NUM_CLASSES))
    opened = dataset._open(f"{s3_uri}/artifacts/cache/{cache.key}")
    parts = list(dataset._rows(opened, dataset.open_manifest(opened), "val", "shards/val-0.parquet"))
    assert [key in logits_of for part in parts for key in part["key"]] == [True] * 20


def test_importing_the_cache_loads_no_ray() -> None:
    code = "import sys, distill_platform.cache; print('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("reader", ["pandas", "DuckDB", "Polars"])
def test_the_recipe_decodes_a_shard(reader: str, tmp_path: Path) -> None:
    pytest.importorskip(reader.lower())
    cache, logits_of = make_cache(LocalStorage(tmp_path), Encoding("dense", NUM_CLASSES))
    shutil.copyfile(cache.fetch("shards/train-0.parquet"), tmp_path / "shard.parquet")
    found: dict[str, Any] = {"path": str(tmp_path / "shard.parquet")}
    exec(RECIPES[reader], found)
    wanted = torch.stack(list(logits_of.values())[:50]).numpy()
    assert np.array_equal(found["logits"].astype(np.float32), wanted)
    assert found["view"].tolist() == [0, 1] * 25
