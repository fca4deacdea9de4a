"""A cache read through a pool gives what the same cache gives from maps, in reads of whole blocks of one view each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from distill_platform.artifact import Artifact, Draft, produce
from distill_platform.cache import CachedTargets, DenseTarget, Encoding, open_targets
from distill_platform.cache.epochs import EpochRows
from distill_platform.cache.manifest import MANIFEST_FILE, CachedSplit, Manifest
from distill_platform.data.columns import write_columns
from distill_platform.data.examples import Examples, open_split, open_windowed
from distill_platform.data.loader import Loader
from distill_platform.data.mixing import pairs
from distill_platform.data.order import Blocks, WindowedOrder, make_order
from distill_platform.data.views import Views, view_of_epoch
from distill_platform.errors import CacheMismatch
from distill_platform.models import SavedModel, Standardize
from distill_platform.objective import Objective
from distill_platform.storage import LocalStorage
from distill_platform.sweep.trial import TrainingData, TrialJob
from distill_platform.tasks import TASKS
from distill_platform.teacher import train_teacher
from distill_platform.train import CachedTeacher, Trainer
from distill_platform.train.teaching import Teaching
from tests.factory import make_data, settings

NUM_EXAMPLES, NUM_CLASSES = 203, 3
ORDER = WindowedOrder(window_blocks=3, block_examples=16)
MIXING = Views.of(3, 0, [{"name": "mixup", "alpha": 1.0}])


def views_of(num: int) -> Views:
    return Views.of(num, 5, [{"name": "noise", "std": 0.05}] if num > 1 else [])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> LocalStorage:
    return LocalStorage(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def data(workspace: LocalStorage) -> Artifact:
    return make_data(workspace, sizes=(NUM_EXAMPLES, 60, 10))


Change = Callable[[dict[str, np.ndarray]], None]


def make_cache(
    workspace: LocalStorage, data: Artifact, views: Views, change: Change | None = None, name: str = ""
) -> Artifact:
    """Logits that tell example and view apart, in shards of 40 examples; partners and weights where views mix."""

    def body(draft: Draft) -> None:
        splits = {}
        for split, num_views in (("train", views.num), ("val", 1)):
            examples, shards = open_split(data, split), []
            for first in range(0, len(examples), 40):
                index = torch.arange(first, min(first + 40, len(examples))).repeat_interleave(num_views)
                view = torch.arange(len(index)) % num_views
                logits = torch.stack([index, view, index * view], dim=1).half()
                keys = examples.keys.index_select(0, index)
                columns = {"key": keys.numpy(), "view": view.numpy().astype(np.int16), "logits": logits.numpy()}
                if views.mixes:
                    drawn = pairs(examples, index, view, views)
                    columns |= {"partner": drawn.partner.numpy(), "weight": drawn.weight.numpy()}
                if change is not None and split == "train":
                    change(columns)
                shards.append(f"shards/{split}-{first:010d}.parquet")
                write_columns(draft.path(shards[-1]), columns)
            splits[split] = CachedSplit(len(examples), num_views, tuple(shards))
        manifest = Manifest("teacher", data.digest, Encoding("dense", NUM_CLASSES), splits, mixes=views.mixes)
        draft.write_json(MANIFEST_FILE, manifest.to_json())

    return produce(workspace, "cache", 1, {"views": views.num, "name": name}, {"data": data}, body)[0]


def logits_of(targets: CachedTargets, index: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
    target = targets(index, view)
    assert isinstance(target, DenseTarget)
    return target.logits


@pytest.mark.parametrize("num_views", [1, 3])
def test_the_pool_gives_what_the_maps_give_whatever_it_was_told(
    workspace: LocalStorage, data: Artifact, num_views: int
) -> None:
    views, examples = views_of(num_views), open_split(data, "train")
    cache = make_cache(workspace, data, views)
    mapped = open_targets(cache, data, "train", examples)
    pooled = open_targets(cache, data, "train", examples, views, ORDER)
    generator = torch.Generator().manual_seed(0)
    for reads in ((), (Blocks(0, (3, 12)),), (Blocks(4, (0, 5)), Blocks(5, (12, 7))), (Blocks(2, tuple(range(13))),)):
        pooled.prefetch(reads)
        for _ in range(5):
            index = torch.randint(NUM_EXAMPLES, (50,), generator=generator)
            view = torch.randint(num_views, (50,), generator=generator)
            wanted = torch.stack([index, view, index * view], dim=1).float()
            assert torch.equal(logits_of(mapped, index, view), wanted)
            assert torch.equal(logits_of(pooled, index, view), wanted)
    pooled.close()


def test_an_epoch_reads_every_block_of_its_own_views_once_and_nothing_else(
    workspace: LocalStorage, data: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    views, sizes = views_of(3), list[int]()
    preadv = os.preadv

    def counted(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        sizes.append(len(buffers[0]))
        return preadv(descriptor, buffers, offset)

    examples, inputs = open_windowed(data, "train", ORDER)
    targets = open_targets(make_cache(workspace, data, views), data, "train", examples, views, ORDER)
    loader = Loader(examples, views, 20, seed=1, order=ORDER, readers=(inputs, targets))
    monkeypatch.setattr(os, "preadv", counted)
    for epoch in range(2):
        for batch in loader.batches(epoch):
            targets(batch.index, batch.view)
    for reader in (inputs, targets):
        reader.close()
    row_bytes = {8 * 4, 2, 3 * 2}  # of an input, a view, and logits
    assert set(sizes) == {16 * width for width in row_bytes}
    for size in set(sizes):  # two epochs of 13 blocks, less what stays; up to 3 of the epoch that would come next
        assert 20 <= sizes.count(size) <= 29


def train(loader: Loader, examples: Examples, data: Artifact, targets: CachedTargets, cache: Artifact) -> Trainer:
    """Two epochs of a small student; the caller looks at its weights."""
    given, validation = settings(epochs=2, batch_size=20), open_split(data, "val")
    schema = examples.schema
    model = SavedModel(
        "mlp", {"hidden": [8]}, schema.input, schema.class_names, Standardize.of(schema), "classification"
    )
    both = {"train": CachedTeacher(targets), "val": CachedTeacher(open_targets(cache, data, "val", validation))}
    objective = Objective.of(
        TASKS["classification"], {"task": {"weight": 0.3}, "soft_targets": {"weight": 0.7, "temperature": 2.0}}
    )
    return Trainer(model.build(0), objective, loader, validation, given, both)


class Interrupted(Exception):
    """Raised after some steps."""


def test_a_student_is_the_same_from_maps_and_from_pools_and_when_resumed_within_a_window(
    workspace: LocalStorage, data: Artifact
) -> None:
    views = views_of(3)
    cache = make_cache(workspace, data, views)
    mapped = open_split(data, "train")
    plain = train(
        Loader(mapped, views, 20, seed=1, order=ORDER),
        mapped,
        data,
        open_targets(cache, data, "train", mapped),
        cache,
    )
    trained = []
    for _ in range(2):
        examples, inputs = open_windowed(data, "train", ORDER)
        targets = open_targets(cache, data, "train", examples, views, ORDER)
        loader = Loader(examples, views, 20, seed=1, order=ORDER, readers=(inputs, targets))
        trained.append(train(loader, examples, data, targets, cache))
    interrupted, resumed = trained

    def stop() -> None:
        if interrupted.step == 14:
            raise Interrupted

    for _ in range(2):
        plain.run_epoch()
    interrupted.run_epoch(stop)
    with pytest.raises(Interrupted):
        interrupted.run_epoch(stop)
    resumed.load_state(*interrupted.state())
    resumed.run_epoch()
    assert resumed.step == plain.step == 22
    for name, weights in plain.network.state_dict().items():
        assert torch.equal(weights, resumed.network.state_dict()[name]), name


def test_other_views_are_refused(workspace: LocalStorage, data: Artifact) -> None:
    cache, examples = make_cache(workspace, data, views_of(3)), open_split(data, "train")
    with pytest.raises(CacheMismatch, match="split 'train' has 3 views, the run has 1"):
        open_targets(cache, data, "train", examples, views_of(1), ORDER)


@pytest.mark.parametrize("epoch", [0, 1, 2, 7])
def test_the_views_of_an_epoch_need_no_second_look(workspace: LocalStorage, data: Artifact, epoch: int) -> None:
    views, examples = views_of(3), open_split(data, "train")
    targets = open_targets(make_cache(workspace, data, views), data, "train", examples, views, ORDER)
    targets.prefetch((Blocks(epoch, tuple(range(6))),))
    index = torch.arange(96)
    view = view_of_epoch(examples.keys[:96], epoch, views)
    assert torch.equal(logits_of(targets, index, view)[:, 1], view.float())
    targets.close()


def test_a_cache_that_was_mixed_otherwise_is_refused(workspace: LocalStorage, data: Artifact) -> None:
    examples = open_split(data, "train")
    right = make_cache(workspace, data, MIXING, name="mixed")
    assert open_targets(right, data, "train", examples, MIXING).digest == right.digest

    def next_one(columns: dict[str, np.ndarray]) -> None:
        columns["partner"][1] = (columns["partner"][1] + 1) % NUM_EXAMPLES

    wrong = make_cache(workspace, data, MIXING, next_one, name="other partners")
    with pytest.raises(CacheMismatch, match=r"row 1 of split 'train' is mixed with example \d+ .*6 of 609 rows differ"):
        open_targets(wrong, data, "train", examples, MIXING)


def test_members_and_teachers_train_by_the_order_of_their_settings(
    workspace: LocalStorage, data: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = views_of(3)
    teaching = Teaching({"teacher": make_cache(workspace, data, views)})
    job = TrialJob(data, teaching, {}, views, "classification", "val_accuracy", (), workspace, 1)
    members = [TrainingData.open(job, make_order(order, 4096)) for order in ("global", "windowed")]
    assert [member.readers for member in members] == [
        (members[0].teacher,),
        (members[1].examples.inputs, members[1].teacher),
    ]
    index = torch.arange(50)
    mapped, pooled = (member.teacher and member.teacher.targets for member in members)
    assert mapped is not None
    assert pooled is not None
    assert isinstance(pooled.rows, EpochRows)
    assert torch.equal(logits_of(mapped, index, index % 3), logits_of(pooled, index, index % 3))
    members[1].close()

    reads, preadv = list[int](), os.preadv

    def counted(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        reads.append(offset)
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", counted)

    def trained(order: str) -> str:
        def body(draft: Draft) -> None:
            given = settings(epochs=1, order=order, window_examples=4096)
            train_teacher(draft, "mlp", {"hidden": [8]}, data, views, "classification", given)

        return produce(workspace, "teacher", 1, {"order": order}, {"data": data}, body)[0].digest

    assert trained("global") != trained("windowed")
    assert reads == [0]  # its one block, once, though two windows hold it


@pytest.mark.slow
def test_training_within_a_limit_on_memory_stays_flat_and_reads_past_the_page_cache() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "larger_than_memory.py"
    command = [sys.executable, str(script), "--quick", "--json", "--repeats", "1"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout)
    assert found["limit_holds"]
    assert found["cache_vs_limit"] > 1
    assert found["train_peak_last_vs_first_epoch"] < 1.1
    assert found["page_cache_share"] < 0.05
