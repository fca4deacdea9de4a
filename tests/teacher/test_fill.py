"""Filling the cache: the same bytes however it is made, and nothing sealed that the teacher does not say."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distill_platform.artifact import Artifact, Draft, artifact_key, produce, put_file
from distill_platform.cache import CODECS, DenseTarget, Encoding, open_manifest, open_targets
from distill_platform.cache.layers import open_layers
from distill_platform.cache.writer import plan_shards
from distill_platform.data.columns import read_columns, write_columns
from distill_platform.data.examples import open_split
from distill_platform.data.mixing import pairs
from distill_platform.data.views import Views
from distill_platform.errors import CacheMismatch, ModelError
from distill_platform.models import load_network
from distill_platform.storage import open_storage
from distill_platform.teacher import audit_cache, fill, fill_cache
from distill_platform.teacher.shards import FillJob, Made
from tests.factory import VIEWS

MIXED = Views.of(3, 0, [{"name": "noise", "std": 0.05}, {"name": "mixup", "alpha": 0.4}])
DENSE = Encoding("dense", 3)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "plan_shards", lambda *given: plan_shards(*given, rows_per_shard=90))


def over_this_process(make: Callable[[], Any], items: list[Any], *_: Any, **__: Any) -> Iterator[Any]:
    """As `over_workers`, with this process as the one worker: for what does not depend on Ray."""
    call = make()
    return (call(item) for item in items)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "over_workers", over_this_process)


def build(place: Path | str, data: Artifact, teacher: Artifact, **changed: Any) -> Artifact:
    given = {"views": VIEWS, "encoding": DENSE, "num_workers": 2, **changed}
    return produce(
        open_storage(str(place)),
        *("cache", 2, {}, {"data": data, "teacher": teacher}),
        lambda draft: fill_cache(draft, teacher, data, **given),
    )[0]


def files(cache: Artifact) -> dict[str, str]:
    return {name: cache.sha256(name) for name in cache.files}


def test_the_bytes_do_not_depend_on_the_number_of_workers(
    ray_session: None, tmp_path: Path, data: Artifact, teacher: Artifact
) -> None:
    one, two = (build(tmp_path / str(count), data, teacher, num_workers=count) for count in (1, 2))
    assert files(one) == files(two)
    manifest = open_manifest(one)
    assert [len(split.shards) for split in manifest.splits.values()] == [5, 1]
    assert manifest.parity["num_rows"] > 200
    assert 0 < manifest.parity["worst"] < manifest.parity["tolerance"]
    assert manifest.views == VIEWS
    assert one.record["facts"]["batch_size"] == 4096


def test_a_group_that_shares_the_teachers_weights_makes_the_bytes_of_one_worker(
    ray_session: None, tmp_path: Path, data: Artifact, teacher: Artifact
) -> None:
    key = artifact_key("cache", 2, {}, {"data": data, "teacher": teacher})
    for name in ("group", "alone"):  # so small that both ranks have batches, and one of them a turn without
        agreed = f"work/cache/{key}/batch_size/000.json"
        open_storage(str(tmp_path / name)).write(agreed, json.dumps({"batch_size": 16}).encode())
    alone = build(tmp_path / "alone", data, teacher, num_workers=1, layers={"1": "whole"})
    group = build(tmp_path / "group", data, teacher, num_workers=1, group_size=2, layers={"1": "whole"})
    assert files(group) == files(alone)
    assert alone.record["facts"]["batch_size"] == group.record["facts"]["batch_size"] == 16


@pytest.mark.parametrize(
    "encoding",
    [
        Encoding("dense", 3, "float32"),
        Encoding("planes", 3),
        Encoding("int4", 3),
        Encoding("topk", 3, keep=2),
        Encoding("ternary", 3, keep=2),
        Encoding("sampled", 3, keep=2),
        Encoding("head", 3, hidden_size=32),
    ],
    ids=lambda encoding: encoding.codec,
)
def test_every_codec_is_filled_and_read_back_within_its_tolerance(
    alone: None, tmp_path: Path, data: Artifact, teacher: Artifact, encoding: Encoding
) -> None:
    cache = build(tmp_path, data, teacher, encoding=encoding)
    examples = open_split(data, "val")
    index = torch.arange(len(examples))
    target = open_targets(cache, data, "val", examples)(index, 0 * index)
    if CODECS[encoding.codec].target is DenseTarget:
        _, network = load_network(teacher.fetch_folder("model"))
        with torch.inference_mode():
            wanted = network(examples.inputs)["logits"].values
        spread = wanted.amax(-1, keepdim=True) - wanted.amin(-1, keepdim=True)
        apart = target.logits - wanted  # type: ignore[attr-defined]
        apart -= apart.mean(-1, keepdim=True)  # logits are defined up to a constant, and ternary keeps none
        assert float((apart.abs() / spread).max()) < 1 / 28
    parity = open_manifest(cache).parity
    assert parity["num_rows"] > 200
    assert parity["num_redrawn"] == 0
    assert bool(open_manifest(cache).output_layer) == (encoding.codec == "head")


def test_layers_are_kept_beside_the_logits(alone: None, tmp_path: Path, data: Artifact, teacher: Artifact) -> None:
    cache = build(tmp_path, data, teacher, layers={"1": "whole", "2": "pooled"})
    manifest = open_manifest(cache)
    assert manifest.layers == {"1": (32,), "2": (32,)}
    assert manifest.modes == {"1": "whole", "2": "pooled"}
    kept = open_layers(cache, data, "val")
    _, network = load_network(teacher.fetch_folder("model"))
    with torch.inference_mode():
        inside = network.body[:2](network.preprocess(open_split(data, "val").inputs).values)  # type: ignore[index]
    assert kept["1"].dtype == torch.float16
    assert torch.allclose(kept["1"].float(), inside, rtol=1e-3, atol=1e-3)
    assert torch.equal(kept["1"].relu(), kept["2"])


def test_a_layer_that_the_teacher_does_not_have_stops_the_build(
    ray_session: None, tmp_path: Path, data: Artifact, teacher: Artifact
) -> None:
    with pytest.raises(ModelError, match="no layer of the teacher is called '9'"):
        build(tmp_path, data, teacher, layers={"9": "whole"})


def test_mixed_rows_say_whom_they_are_mixed_with(
    alone: None, tmp_path: Path, data: Artifact, teacher: Artifact
) -> None:
    cache = build(tmp_path, data, teacher, views=MIXED)
    manifest = open_manifest(cache)
    assert manifest.mixes
    examples = open_split(data, "train")
    stored = [read_columns(cache.fetch(name)) for name in manifest.splits["train"].shards]
    partner, weight = (np.concatenate([part[name] for part in stored]) for name in ("partner", "weight"))
    rows = torch.arange(len(examples) * 3)
    wanted = pairs(examples, rows // 3, rows % 3, MIXED)
    assert np.array_equal(partner, wanted.partner.numpy())
    assert np.array_equal(weight, wanted.weight.numpy())
    assert (weight < 1).mean() > 0.5


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_short_arithmetic_stays_within_its_stated_tolerance_and_beyond_that_of_float32(
    alone: None, tmp_path: Path, data: Artifact, teacher: Artifact, precision: str
) -> None:
    cache = build(tmp_path, data, teacher, encoding=Encoding("dense", 3, "float32"), precision=precision)
    parity = open_manifest(cache).parity
    assert 1e-4 < parity["worst"] < parity["tolerance"]
    assert open_manifest(cache).precision == precision


def test_rows_that_the_teacher_does_not_say_are_never_sealed(
    alone: None, tmp_path: Path, data: Artifact, teacher: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard whose logits are off by one row, with the right keys and a valid marker."""
    real = FillJob._make

    def shifted(job: FillJob, shard: Any, *given: Any) -> Made:
        made = real(job, shard, *given)
        path = Path(job.cache.uri) / made.entry["path"]
        columns = read_columns(path)
        logits = {"logits": np.roll(columns["logits"], 1, axis=0)}
        write_columns(tmp_path / "shard.parquet", {**columns, **logits})
        return Made(shard, put_file(job.cache, shard.name, tmp_path / "shard.parquet"))

    monkeypatch.setattr(FillJob, "_make", shifted)
    with pytest.raises(
        CacheMismatch,
        match=r"of \d+ rows that were read back are not what the teacher says: split 'train', row \d+ "
        r"\(shards/train-0000000000.parquet\), key [0-9a-f]{12}, view \d: .*Nothing was sealed.*distill retry cache",
    ):
        build(tmp_path / "place", data, teacher)
    assert not [name for name in open_storage(str(tmp_path / "place")).list() if name.endswith("record.json")]


def test_a_device_that_runs_out_of_memory_makes_the_whole_build_anew_with_half_the_batch(
    alone: None, tmp_path: Path, data: Artifact, teacher: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An undisturbed build with the smaller size comes to the same bytes: no shard is left of the larger one."""
    sizes = []
    real = FillJob._make

    def make(job: FillJob, shard: Any, examples: Any, answers: Any, batch_size: int) -> Made:
        sizes.append(batch_size)
        if len(sizes) == 3:
            raise torch.OutOfMemoryError
        return real(job, shard, examples, answers, batch_size)

    monkeypatch.setattr(FillJob, "_make", make)
    cache = build(tmp_path / "disturbed", data, teacher)
    assert sizes == [4096] * 3 + [2048] * 6
    assert cache.record["facts"]["batch_size"] == 2048
    monkeypatch.setattr(FillJob, "_proposal", lambda *given: 2048)
    assert files(build(tmp_path / "undisturbed", data, teacher)) == files(cache)


def test_a_build_that_goes_on_keeps_the_batch_size_and_the_shards_that_are_there(
    alone: None, tmp_path: Path, data: Artifact, teacher: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, made = FillJob._make, []

    def make(job: FillJob, shard: Any, *given: Any) -> Made:
        made.append((shard.name, given[-1]))
        if len(made) == 3:
            raise KeyboardInterrupt
        return real(job, shard, *given)

    monkeypatch.setattr(FillJob, "_make", make)
    monkeypatch.setattr(FillJob, "_proposal", lambda *given: 32)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, data, teacher)
    monkeypatch.setattr(FillJob, "_proposal", lambda *given: 64)
    build(tmp_path, data, teacher)
    assert {size for _, size in made} == {32}
    assert len(made) == 7
    assert len({name for name, _ in made}) == 6


def test_uploads_of_a_dead_build_are_removed_before_anything_is_made(
    alone: None, tmp_path: Path, data: Artifact, teacher: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "UPLOAD_S", 0.0)
    left = []

    def body(draft: Draft) -> None:
        folder = Path(draft.storage.uri) / "shards"
        folder.mkdir(parents=True)
        (folder / ".tmp-0123456789abcdef0123456789abcdef").write_bytes(b"half a shard")
        fill_cache(draft, teacher, data, VIEWS, DENSE, 1)
        left.extend(path.name for path in folder.iterdir() if path.name.startswith(".tmp-"))

    produce(open_storage(str(tmp_path)), "cache", 2, {}, {"data": data, "teacher": teacher}, body)
    assert left == []


def test_a_cache_on_s3_is_read_back_and_audited_from_there(
    alone: None, s3_uri: str, data: Artifact, teacher: Artifact
) -> None:
    cache = build(s3_uri, data, teacher)
    assert cache.uri.startswith("s3://")
    assert open_manifest(cache).parity["num_rows"] > 200
    report = audit_cache(cache, data, teacher, 50)
    assert report.passed
    assert report.num_shards > 2
