"""The cache gives back what the teacher said about exactly this example in exactly this view, or refuses."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from distill_platform.artifact import Artifact, Draft, produce
from distill_platform.cache import DenseTarget, Encoding, open_manifest, open_targets, verify_cache
from distill_platform.cache.manifest import MANIFEST_FILE, CachedSplit, Manifest
from distill_platform.cache.reader import _check_rows
from distill_platform.cache.writer import plan_shards, write_shard
from distill_platform.data.examples import open_split
from distill_platform.data.views import Views, augment
from distill_platform.errors import CacheMismatch, Corrupt, FormatError
from distill_platform.models import load_network
from distill_platform.storage import LocalStorage
from distill_platform.teacher import fill_cache, train_teacher
from tests.factory import VIEWS, make_data, make_teacher, settings


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> LocalStorage:
    return LocalStorage(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def data(workspace: LocalStorage) -> Artifact:
    return make_data(workspace)


@pytest.fixture(scope="module")
def teacher(workspace: LocalStorage, data: Artifact) -> Artifact:
    return make_teacher(workspace, data)


def build(
    workspace: LocalStorage, data: Artifact, teacher: Artifact, dtype: str = "float32", name: str = ""
) -> Artifact:
    """A cache in this process, several shards of the training split."""
    _, network = load_network(teacher.fetch_folder("model"))

    encoding = Encoding("dense", 3, dtype)

    def predict(inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.inference_mode():
            return {"logits": network(inputs)["logits"].values}

    def body(draft: Draft) -> None:
        splits = {}
        for split, views in (("train", VIEWS.num), ("val", 1)):
            examples = open_split(data, split)
            shards = plan_shards(split, len(examples), views, rows_per_shard=90)
            for shard in shards:
                write_shard(draft.path(shard.name), shard, examples, VIEWS, predict, encoding, batch_size=17)
            splits[split] = CachedSplit(len(examples), views, tuple(shard.name for shard in shards))
        manifest = Manifest(teacher.digest, data.digest, encoding, splits)
        draft.write_json(MANIFEST_FILE, manifest.to_json())

    return produce(workspace, "cache", 1, {"dtype": dtype, "name": name}, {"data": data, "teacher": teacher}, body)[0]


def test_targets_are_the_teachers_logits_for_that_example_and_view(
    workspace: LocalStorage, data: Artifact, teacher: Artifact
) -> None:
    cache, examples = build(workspace, data, teacher), open_split(data, "train")
    targets = open_targets(cache, data, "train", examples)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(len(examples), (50,), generator=generator)
    view = torch.randint(VIEWS.num, (50,), generator=generator)
    seen = augment(examples.inputs[index], examples.keys[index], view, VIEWS, examples.schema.input)
    _, network = load_network(teacher.fetch_folder("model"))
    with torch.inference_mode():
        wanted = network(seen)["logits"].values
    target = targets(index, view)
    assert isinstance(target, DenseTarget)
    assert torch.allclose(target.logits, wanted, atol=1e-5)
    assert not torch.allclose(target.logits, targets(index, 1 - view).logits, atol=1e-3)  # type: ignore[attr-defined]


def test_half_precision_keeps_three_digits(workspace: LocalStorage, data: Artifact, teacher: Artifact) -> None:
    examples, index = open_split(data, "val"), torch.arange(60)
    exact, half = (
        open_targets(build(workspace, data, teacher, dtype), data, "val", examples)(index, 0 * index)
        for dtype in ("float32", "float16")
    )
    assert torch.allclose(exact.logits, half.logits, rtol=1e-3, atol=1e-3)  # type: ignore[attr-defined]


def test_a_cache_of_other_data_is_refused(workspace: LocalStorage, data: Artifact, teacher: Artifact) -> None:
    other = make_data(workspace, seed=1)
    cache = build(workspace, data, teacher)
    with pytest.raises(
        CacheMismatch, match=f"was built with data {data.digest[:12]}, this run has {other.digest[:12]}"
    ):
        open_targets(cache, other, "train", open_split(other, "train"))


def test_rows_in_another_order_are_refused(workspace: LocalStorage, data: Artifact, teacher: Artifact) -> None:
    cache, examples = build(workspace, data, teacher), open_split(data, "train")
    swapped = examples.keys.clone()
    swapped[[3, 4]] = swapped[[4, 3]]
    disordered = type(examples)(examples.schema, swapped, examples.inputs, examples.labels)
    with pytest.raises(CacheMismatch, match="row 6 of split 'train' is not for the data's example and view"):
        open_targets(cache, data, "train", disordered)


def test_rows_of_another_view_are_refused(workspace: LocalStorage, data: Artifact, teacher: Artifact) -> None:
    cache, examples = build(workspace, data, teacher), open_split(data, "val")
    shown = replace(open_manifest(cache).splits["val"], num_views=2, num_examples=30)
    with pytest.raises(CacheMismatch, match="row 1 of split 'val' is not for the data's example and view"):
        _check_rows(
            *(cache, "val", examples.keys, torch.zeros(60, dtype=torch.int16), shown),
            type(examples)(examples.schema, examples.keys[::2], examples.inputs[::2], examples.labels[::2]),
        )


def test_a_cache_of_other_views_is_refused(
    workspace: LocalStorage, data: Artifact, teacher: Artifact, ray_session: None
) -> None:
    cache, _ = produce(
        *(workspace, "cache", 1, {"name": "views"}, {"data": data, "teacher": teacher}),
        lambda draft: fill_cache(draft, teacher, data, VIEWS, Encoding("dense", 3), num_workers=1),
    )
    other = Views.of(VIEWS.num, 0, [{"name": "noise", "std": 0.3}])
    examples = open_split(data, "train")
    assert open_targets(cache, data, "train", examples, VIEWS).digest == cache.digest
    with pytest.raises(CacheMismatch, match=r"was built with the views .*0\.05.*, this run has .*0\.3"):
        open_targets(cache, data, "train", examples, other)


def test_several_teachers_have_caches_side_by_side(
    workspace: LocalStorage, data: Artifact, teacher: Artifact, ray_session: None
) -> None:
    larger, _ = produce(
        *(workspace, "teacher", 1, {"hidden": 64}, {"data": data}),
        lambda draft: train_teacher(draft, "mlp", {"hidden": [64]}, data, VIEWS, "classification", settings()),
    )

    def cache_of(one: Artifact) -> tuple[Artifact, bool]:
        body = partial(fill_cache, teacher=one, data=data, views=VIEWS, encoding=Encoding("dense", 3), num_workers=1)
        return produce(workspace, "cache", 1, {"name": "several"}, {"data": data, "teacher": one}, body)

    (first, made_first), (second, made_second) = cache_of(teacher), cache_of(larger)
    assert made_first
    assert made_second
    assert first.key != second.key
    assert not cache_of(teacher)[1], "adding a teacher recomputes no other"
    examples, index = open_split(data, "train"), torch.arange(20)
    targets = [open_targets(cache, data, "train", examples, VIEWS)(index, 0 * index) for cache in (first, second)]
    assert not torch.allclose(targets[0].logits, targets[1].logits, atol=1e-2)  # type: ignore[attr-defined]


def test_a_flipped_byte_in_a_shard_is_refused(
    workspace: LocalStorage, data: Artifact, teacher: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = build(workspace, data, teacher, name="to be damaged")
    shard = cache.files_under("shards")[0]
    path = LocalStorage(Path(cache.uri)).path(cache.record["files"][shard]["path"])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    monkeypatch.setenv("DISTILL_SCRATCH", str(tmp_path))
    with pytest.raises(Corrupt, match="the bytes changed after they were written"):
        open_targets(cache, data, "train", open_split(data, "train"))
    with pytest.raises(Corrupt, match=path.name):
        verify_cache(cache)


def test_verify_counts_the_rows_of_a_sound_cache(workspace: LocalStorage, data: Artifact, teacher: Artifact) -> None:
    assert verify_cache(build(workspace, data, teacher)) == 200 * VIEWS.num + 60


def test_a_manifest_of_another_version_is_refused(workspace: LocalStorage, data: Artifact) -> None:
    def body(draft: Draft) -> None:
        draft.write_json(MANIFEST_FILE, {"format": 99})

    newer, _ = produce(workspace, "cache", 1, {"newer": True}, {}, body)
    with pytest.raises(FormatError, match="has format 99, this release reads 1 to 2"):
        open_manifest(newer)


def test_shards_cover_every_row_once_whatever_their_size() -> None:
    for rows_per_shard in (1, 7, 90, 10_000):
        shards = plan_shards("train", 101, 4, rows_per_shard)
        covered = [row for shard in shards for row in range(shard.first, shard.last)]
        assert covered == list(range(101))
