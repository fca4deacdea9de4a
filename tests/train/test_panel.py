"""Several teachers as one, over caches of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distill_platform.artifact import Artifact, produce
from distill_platform.cache import Encoding
from distill_platform.data.examples import Examples, open_split
from distill_platform.models import Output
from distill_platform.objective.catalogue import LOSSES
from distill_platform.objective.combination import Combination
from distill_platform.objective.loss import CombinedTarget
from distill_platform.storage import LocalStorage
from distill_platform.teacher import fill, fill_cache, train_teacher
from distill_platform.train.panel import Panel
from distill_platform.train.teaching import Teaching
from tests.factory import VIEWS, make_data, settings

ENCODINGS = {"wide": Encoding("dense", 3), "poor": Encoding("topk", 3, keep=2)}


@pytest.fixture(scope="module")
def alone() -> Any:
    """This process as the one worker."""

    def over_this_process(make: Any, items: list[Any], *_: Any, **__: Any) -> Any:
        call = make()
        return (call(item) for item in items)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fill, "over_workers", over_this_process)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_data(LocalStorage(tmp_path_factory.mktemp("workspace")))


@pytest.fixture(scope="module")
def caches(alone: None, data: Artifact, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Of a good teacher, and of one that learned next to nothing."""
    workspace, found = LocalStorage(tmp_path_factory.mktemp("caches")), {}
    for name, changed in {"wide": {}, "poor": {"lr": 1e-5, "epochs": 1}}.items():
        given = settings(**changed)

        def train(draft: Any, given: Any = given) -> None:
            train_teacher(draft, "mlp", {"hidden": [32]}, data, VIEWS, "classification", given)

        teacher, _ = produce(workspace, "teacher", 1, {"name": name}, {"data": data}, train)

        def body(draft: Any, teacher: Artifact = teacher, encoding: Encoding = ENCODINGS[name]) -> None:
            fill_cache(draft, teacher, data, VIEWS, encoding, 1)

        found[name], _ = produce(workspace, "cache", 1, {"name": name}, {"data": data, "teacher": teacher}, body)
    return found


def panel(caches: dict[str, Artifact], data: Artifact, examples: Examples, by: str, **more: Any) -> Panel:
    combination = Combination(by, tuple(caches), more.get("weights", {}), more.get("routes", {}))
    opened = Teaching(caches, combination=combination).open(data, "train", examples, VIEWS)
    assert isinstance(opened, Panel)
    return opened


def asked(teacher: Panel, examples: Examples, num: int = 50) -> CombinedTarget:
    index = torch.arange(num)
    target = teacher(index, torch.zeros_like(index), examples.inputs[:num]).target
    assert isinstance(target, CombinedTarget)
    return target


def test_the_loss_for_a_panel_is_the_weighted_sum_over_codecs_of_their_own(
    caches: dict[str, Artifact], data: Artifact
) -> None:
    examples = open_split(data, "train")
    weights = {"wide": 0.75, "poor": 0.25}
    target = asked(panel(caches, data, examples, "fixed", weights=weights), examples)
    student = Output(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)))
    loss = LOSSES["soft_targets"]
    each = [float(loss(student, part, temperature=1.0)) for part, _ in target.parts]
    assert [type(part).__name__ for part, _ in target.parts] == ["DenseTarget", "TopKTarget"]
    assert float(loss(student, target, temperature=1.0)) == pytest.approx(0.75 * each[0] + 0.25 * each[1], rel=1e-6)


def test_learned_weights_leave_a_teacher_that_knows_nothing_aside(caches: dict[str, Artifact], data: Artifact) -> None:
    weights = panel(caches, data, open_split(data, "train"), "learned").weights
    assert weights is not None
    assert weights[0] > 0.9


def test_by_confidence_the_right_teacher_counts_more_example_by_example(
    caches: dict[str, Artifact], data: Artifact
) -> None:
    examples = open_split(data, "train")
    target = asked(panel(caches, data, examples, "confidence"), examples)
    (_, wide), (_, poor) = target.parts
    assert isinstance(wide, torch.Tensor)
    assert torch.allclose(wide + poor, torch.ones(50))
    assert float(wide.mean()) > 0.6
    student = Output(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)))
    loss = LOSSES["soft_targets"]
    by_example = [
        sum(
            float(share[row]) * float(loss(Output(student.values[[row]]), _row(part, row), temperature=1.0))
            for part, share in target.parts
            if isinstance(share, torch.Tensor)
        )
        for row in range(50)
    ]
    assert float(loss(student, target, temperature=1.0)) == pytest.approx(sum(by_example) / 50, rel=1e-5)


def test_a_panel_is_named_by_all_its_caches(caches: dict[str, Artifact], data: Artifact) -> None:
    digests = [cache.digest for cache in caches.values()]
    assert panel(caches, data, open_split(data, "train"), "mean").digest == "+".join(digests)
    assert Teaching(caches).digest == "+".join(digests)
    assert Teaching().digest is None


def _row(target: Any, row: int) -> Any:
    import dataclasses

    values = {
        field.name: value[[row]] if isinstance(value := getattr(target, field.name), torch.Tensor) else value
        for field in dataclasses.fields(target)
    }
    return type(target)(**values)
