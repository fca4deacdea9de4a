"""Kept layers by (example, view): from maps and from a pool alike, and only as they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from distill_platform.artifact import Artifact, Draft, produce
from distill_platform.cache import Encoding
from distill_platform.cache.epochs import EpochRows
from distill_platform.cache.layers import open_layer_rows
from distill_platform.cache.manifest import MANIFEST_FILE, CachedSplit, Manifest
from distill_platform.cache.writer import plan_shards, write_shard
from distill_platform.data.examples import open_split
from distill_platform.data.order import Blocks, WindowedOrder
from distill_platform.data.views import Views, view_of_epoch
from distill_platform.errors import CacheMismatch, ModelError
from distill_platform.storage import LocalStorage
from distill_platform.train import open_teacher
from tests.factory import make_data

ORDER = WindowedOrder(window_blocks=3, block_examples=16)


def views_of(num: int) -> Views:
    return Views.of(num, 5, [{"name": "noise", "std": 0.05}] if num > 1 else [])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_data(LocalStorage(tmp_path_factory.mktemp("workspace")), sizes=(101, 30, 10))


def answer(inputs: Tensor) -> dict[str, Tensor]:
    """A layer that repeats its inputs, and one of other shape made of them."""
    return {
        "logits": inputs[:, :3],
        "layer.same": inputs,
        "layer.outer": inputs[:, :2, None] * inputs[:, None, :3],
    }


def make_cache(data: Artifact, views: Views) -> Artifact:
    workspace = LocalStorage(Path(data.uri).parents[2])

    def body(draft: Draft) -> None:
        splits = {}
        for split, shown in (("train", views), ("val", views_of(1))):
            examples, encoding = open_split(data, split), Encoding("dense", 3)
            shards = plan_shards(split, len(examples), shown.num, rows_per_shard=90)
            for shard in shards:
                write_shard(draft.path(shard.name), shard, examples, shown, answer, encoding, batch_size=32)
            splits[split] = CachedSplit(len(examples), shown.num, tuple(shard.name for shard in shards))
        layers = {"layers": {"same": (8,), "outer": (2, 3)}, "modes": {"same": "pooled", "outer": "whole"}}
        draft.write_json(MANIFEST_FILE, Manifest("t", data.digest, Encoding("dense", 3), splits, **layers).to_json())

    return produce(workspace, "cache", 1, {"views": views.num}, {"data": data}, body)[0]


@pytest.mark.parametrize("num_views", [1, 3])
def test_rows_are_those_of_their_example_and_view_in_any_order(data: Artifact, num_views: int) -> None:
    views, examples = views_of(num_views), open_split(data, "train")
    cache, wanted = make_cache(data, views), {"outer": "whole", "same": "pooled"}
    mapped = open_layer_rows(cache, data, "train", wanted, examples, views)
    pooled = open_layer_rows(cache, data, "train", wanted, examples, views, ORDER)
    assert isinstance(pooled.rows, EpochRows)
    assert mapped.shapes == pooled.shapes == {"outer": (2, 3), "same": (8,)}
    index = torch.randperm(101, generator=torch.Generator().manual_seed(0))[:40]
    for epoch in range(num_views):
        view = view_of_epoch(examples.keys[index], epoch, views)
        pooled.prefetch((Blocks(epoch, tuple(range(3))),))
        found, read = mapped(index, view), pooled(index, view)
        for name in wanted:
            assert torch.equal(found[name], read[name])
        untouched = view == 0
        assert torch.allclose(found["same"][untouched].float(), examples.inputs[index][untouched], rtol=1e-3, atol=1e-3)
    pooled.close()


def test_a_cached_teacher_gives_outputs_and_layers_of_the_same_rows_and_is_told_ahead_of_both(data: Artifact) -> None:
    views, examples = views_of(3), open_split(data, "train")
    cache, index = make_cache(data, views), torch.arange(20)
    view = view_of_epoch(examples.keys[index], 1, views)
    mapped, pooled = (
        open_teacher(cache, data, "train", examples, views, order, {"s*": "pooled", "outer": "whole"})
        for order in (None, ORDER)
    )
    pooled.prefetch((Blocks(1, (0, 1)),))
    assert mapped.layer_shapes == pooled.layer_shapes == {"outer": (2, 3), "same": (8,)}
    found, read = (one(index, view, examples.inputs[index]) for one in (mapped, pooled))
    assert torch.equal(found.target.logits, read.target.logits)  # type: ignore[attr-defined]
    assert torch.equal(found.layers["same"][:, :3].float(), found.target.logits)  # type: ignore[attr-defined]
    for name, values in found.layers.items():
        assert torch.equal(values, read.layers[name])
    pooled.close()
    with pytest.raises(ModelError, match="objective: no layer of the teacher's cache is called 'other'; did you mean"):
        open_teacher(cache, data, "train", examples, views, None, {"other": "whole"})
    assert open_teacher(cache, data, "train", examples, views).layers is None


def test_a_layer_that_is_kept_pooled_or_not_at_all_is_refused_whole(data: Artifact) -> None:
    views, examples = views_of(1), open_split(data, "train")
    cache = make_cache(data, views)
    for name, kept in {"same": "pooled", "other": "nothing"}.items():
        with pytest.raises(CacheMismatch, match=f"keeps {kept} of layer '{name}', the objective wants whole; run the"):
            open_layer_rows(cache, data, "train", {name: "whole"}, examples, views)
    assert open_layer_rows(cache, data, "train", {"outer": "pooled"}, examples, views).shapes == {"outer": (2, 3)}
