"""An audit asks the teacher again, and says which rows of a cache are not its answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from distill_platform.artifact import Artifact, Draft, produce
from distill_platform.cache import Encoding, open_manifest
from distill_platform.cache.codecs import Columns
from distill_platform.cache.manifest import MANIFEST_FILE
from distill_platform.data.columns import read_columns, write_columns
from distill_platform.data.views import Views
from distill_platform.errors import CacheMismatch
from distill_platform.models import load_network, save_model
from distill_platform.storage import LocalStorage
from distill_platform.teacher import audit_cache, fill, fill_cache
from tests.factory import VIEWS
from tests.teacher.test_fill import over_this_process


def build(
    workspace: LocalStorage, data: Artifact, teacher: Artifact, encoding: Encoding, views: Views = VIEWS
) -> Artifact:
    def body(draft: Draft) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fill, "over_workers", over_this_process)
            fill_cache(draft, teacher, data, views, encoding, 1)

    config = {"codec": encoding.codec, "views": str(views)}
    return produce(workspace, "cache", 2, config, {"data": data, "teacher": teacher}, body)[0]


@pytest.fixture(scope="module")
def cache(workspace: LocalStorage, data: Artifact, teacher: Artifact) -> Artifact:
    return build(workspace, data, teacher, Encoding("dense", 3))


def forged(cache: Artifact, change: Callable[[Columns], Columns], workspace: LocalStorage, name: str) -> Artifact:
    """A cache with a valid record whose training rows are not what they should be."""
    (train,) = open_manifest(cache).splits["train"].shards

    def body(draft: Draft) -> None:
        for file in cache.files:
            draft.write(file, cache.read(file))
        write_columns(draft.path(train), change(read_columns(cache.fetch(train))))

    return produce(workspace, "cache", 2, {"forged": name}, dict.fromkeys(("data", "teacher"), cache), body)[0]


@pytest.mark.parametrize(
    "encoding",
    [
        Encoding("dense", 3),
        Encoding("int4", 3),
        Encoding("topk", 3, keep=2),
        Encoding("ternary", 3, keep=2),
        Encoding("sampled", 3, keep=2),
        Encoding("head", 3, hidden_size=32),
    ],
    ids=lambda encoding: encoding.codec,
)
def test_a_sound_cache_passes_and_the_same_rows_are_asked_for_the_same_seed(
    workspace: LocalStorage, data: Artifact, teacher: Artifact, encoding: Encoding
) -> None:
    built = build(workspace, data, teacher, encoding)
    first, again, other = (audit_cache(built, data, teacher, 100, seed) for seed in (0, 0, 1))
    assert first.passed
    assert other.passed
    assert 80 < first.num_rows <= 100
    assert first == again
    then, now = first.to_json()["libraries"]["torch"]
    assert then == now == version("torch")
    assert first.num_wrong == 0


def test_rows_that_are_off_by_one_are_found_and_named(
    cache: Artifact, data: Artifact, teacher: Artifact, workspace: LocalStorage
) -> None:
    shifted = forged(
        cache, lambda rows: {**rows, "logits": np.roll(rows["logits"], 1, axis=0)}, workspace, "logits off by one"
    )
    report = audit_cache(shifted, data, teacher, 100)
    assert not report.passed
    assert report.num_wrong > 60
    assert "split 'train', row " in report.wrong[0]
    assert "away from the teacher's answer" in report.wrong[0]


def test_keys_of_other_examples_are_found(
    cache: Artifact, data: Artifact, teacher: Artifact, workspace: LocalStorage
) -> None:
    shifted = forged(
        cache, lambda rows: {name: np.roll(values, 2, 0) for name, values in rows.items()}, workspace, "all"
    )
    report = audit_cache(shifted, data, teacher, 100)
    assert not report.passed
    assert ": key is " in report.wrong[0]


def test_draws_that_belong_to_other_rows_are_found(data: Artifact, teacher: Artifact, workspace: LocalStorage) -> None:
    built = build(workspace, data, teacher, Encoding("sampled", 3, keep=2))
    shifted = forged(built, lambda rows: {**rows, "draws": np.roll(rows["draws"], 7, axis=0)}, workspace, "draws")
    report = audit_cache(shifted, data, teacher, 200)
    assert not report.passed
    assert report.num_redrawn > 20


def test_a_changed_transform_is_found(
    cache: Artifact, data: Artifact, teacher: Artifact, workspace: LocalStorage
) -> None:
    """The manifest says another noise than the shards were made with: what a changed library would amount to."""
    stronger = Views.of(2, 0, [{"name": "noise", "std": 0.06}])

    def body(draft: Draft) -> None:
        for file in cache.files:
            draft.write(file, cache.read(file))
        draft.write_json(MANIFEST_FILE, replace(open_manifest(cache), views=stronger).to_json())

    changed, _ = produce(workspace, "cache", 2, {"forged": "views"}, {}, body)
    report = audit_cache(changed, data, teacher, 100)
    assert not report.passed
    assert all(", view 1: " in said for said in report.wrong)


def test_changed_weights_are_found(cache: Artifact, data: Artifact, teacher: Artifact, workspace: LocalStorage) -> None:
    model, network = load_network(teacher.fetch_folder("model"))
    with torch.no_grad():
        network.body[-1].weight[0] *= 1.01  # type: ignore[index]

    def body(draft: Draft) -> None:
        save_model(draft.folder / "model", model, network)

    other, _ = produce(workspace, "teacher", 1, {"changed": True}, {}, body)
    with pytest.raises(CacheMismatch, match="was built with teacher"):
        audit_cache(cache, data, other)

    def claim(draft: Draft) -> None:
        for file in cache.files:
            draft.write(file, cache.read(file))
        draft.write_json(MANIFEST_FILE, replace(open_manifest(cache), teacher=other.digest).to_json())

    claimed, _ = produce(workspace, "cache", 2, {"forged": "teacher"}, {}, claim)
    assert not audit_cache(claimed, data, other, 100).passed


def test_missing_rows_are_found(cache: Artifact, data: Artifact, teacher: Artifact, workspace: LocalStorage) -> None:
    short = forged(cache, lambda rows: {name: values[:-9] for name, values in rows.items()}, workspace, "short")
    report = audit_cache(short, data, teacher, 100)
    assert not report.passed
    assert "shards/train-0000000000.parquet holds 391 rows, wanted 400" in report.wrong


def test_a_cache_that_does_not_say_its_views_is_refused(
    cache: Artifact, data: Artifact, teacher: Artifact, workspace: LocalStorage, tmp_path: Path
) -> None:
    def body(draft: Draft) -> None:
        draft.write_json(MANIFEST_FILE, replace(open_manifest(cache), views=None).to_json())

    old, _ = produce(workspace, "cache", 2, {"old": True}, {}, body)
    with pytest.raises(CacheMismatch, match="did not keep its views; build it again"):
        audit_cache(old, data, teacher)
