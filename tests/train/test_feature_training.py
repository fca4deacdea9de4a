"""Training with feature losses: what is learned beside the student resumes with it and ships with nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distill_platform.artifact import Artifact
from distill_platform.data.examples import open_schema, open_split
from distill_platform.data.loader import Batch, Loader
from distill_platform.data.mixing import show
from distill_platform.errors import ModelError
from distill_platform.models import Network, SavedModel, Standardize
from distill_platform.objective import Objective
from distill_platform.storage import LocalStorage
from distill_platform.tasks import TASKS
from distill_platform.train import Checkpoints, LiveTeacher, Trainer, fit
from tests.factory import VIEWS, make_data, settings

TERMS: dict[str, dict[str, Any]] = {
    "task": {"weight": 0.5},
    "soft_targets": {"weight": {"from": 1.0, "to": 0.2}, "temperature": 2.0},
    "hint": {"weight": 0.1, "layers": {"2": "2"}},
    "crd": {"weight": 0.05, "layers": {"2": "2"}, "feature_dim": 8, "num_negatives": 16},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_data(LocalStorage(tmp_path_factory.mktemp("workspace")))


def network(data: Artifact, hidden: int, seed: int = 0) -> Network:
    schema = open_schema(data)
    args = {"hidden": [hidden], "dropout": 0.2}
    return SavedModel("mlp", args, schema.input, schema.class_names, Standardize.of(schema)).build(seed)


def trainer(data: Artifact, terms: dict[str, dict[str, Any]] = TERMS, **changed: Any) -> Trainer:
    given, objective = settings(**changed), Objective.of(TASKS["classification"], terms)
    sample = open_split(data, "val").inputs[:2]
    teacher = LiveTeacher(network(data, 24, seed=7), "t" * 64, objective.teacher_layers, sample)
    return Trainer(
        network(data, 12),
        objective,
        Loader(open_split(data, "train"), VIEWS, given.batch_size, given.seed),
        open_split(data, "val"),
        given,
        {"train": teacher, "val": teacher},
    )


class Killed(Exception):
    pass


@pytest.mark.parametrize("killed_after", [1, 9, 14])
def test_resumed_and_uninterrupted_training_end_bit_identical(
    data: Artifact, tmp_path: Path, killed_after: int
) -> None:
    whole = trainer(data)
    fit(whole, Checkpoints(LocalStorage(tmp_path / "whole")))
    checkpoints, killed = Checkpoints(LocalStorage(tmp_path / "killed")), trainer(data)
    original = killed._train_step

    def step_or_die(batch: Batch) -> None:
        if killed.step == killed_after:
            raise Killed
        original(batch)

    killed._train_step = step_or_die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        fit(killed, checkpoints, checkpoint_every_s=0)
    resumed = trainer(data)
    fit(resumed, checkpoints, checkpoint_every_s=0)
    states = [one.objective.modules.state_dict() for one in (whole, resumed)]
    assert "crd.0.bank" in states[0]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    assert [{**report, "seconds": 0} for report in resumed.reports] == [
        {**report, "seconds": 0} for report in whole.reports
    ]
    for name, value in whole.load_best().state_dict().items():
        assert torch.equal(value, resumed.load_best().state_dict()[name]), name


def test_regressors_are_trained_by_the_students_rules_and_ship_with_nothing(data: Artifact) -> None:
    given = trainer(data, epochs=1)
    before = {name: value.clone() for name, value in given.objective.modules.state_dict().items()}
    decay = {id(each): group["weight_decay"] for group in given.optimizer.param_groups for each in group["params"]}
    for parameter in given.objective.modules.parameters():
        assert decay[id(parameter)] == (1e-4 if parameter.ndim > 1 else 0.0)
    report = given.run_epoch()
    assert set(report["terms"]) == set(report["shares"]) == set(TERMS)
    assert min(report["shares"].values()) > 0
    after = given.objective.modules.state_dict()
    assert all(not torch.equal(value, before[name]) for name, value in after.items())
    plain = network(data, 12)
    assert given.load_best().state_dict().keys() == plain.state_dict().keys()
    assert given.load_best().num_parameters == plain.num_parameters


def test_what_a_regressor_needs_does_not_shorten_the_students_step(data: Artifact) -> None:
    terms = {"task": {"weight": 1.0}, "hint": {"weight": 1e-30, "layers": {"2": "2"}}}
    with_hint, without = trainer(data, terms, optimizer="sgd"), trainer(data, {"task": TERMS["task"] | {"weight": 1.0}})
    assert [parameter.shape for parameter in with_hint.parameters] == [p.shape for p in without.parameters]
    (hint,) = with_hint.objective.modules["hint"]  # type: ignore[misc]
    hint.regressor.weight.register_hook(lambda gradient: torch.full_like(gradient, 1e3))
    moved = {name: value.clone() for name, value in with_hint.network.named_parameters()}
    batch = next(iter(with_hint.loader.batches(0)))
    with_hint._train_step(batch)
    lengths = [float((value - moved[name]).detach().norm()) for name, value in with_hint.network.named_parameters()]
    assert max(lengths) > 1e-3 * with_hint.optimizer.param_groups[0]["lr"]


def test_hooks_are_on_the_student_only_while_it_trains(data: Artifact) -> None:
    given, hooked = trainer(data, epochs=1), list[bool]()
    given.network.body.register_forward_pre_hook(  # type: ignore[union-attr]
        lambda module, _: hooked.append(any(len(each._forward_hooks) for each in module.children()))
    )
    given.run_epoch()
    assert hooked == [True] * given.loader.num_batches + [False]
    plain = trainer(data, {"task": {"weight": 1.0}}, epochs=1)
    assert plain._capture is None
    assert not plain.objective.modules


def test_layers_that_are_not_there_are_refused_before_the_first_step(data: Artifact) -> None:
    with pytest.raises(ModelError, match="objective: no layer of the student is called '9'; it has: 0, 1, 2, 3, 4"):
        trainer(data, {"hint": {"weight": 1.0, "layers": {"2": "9"}}})


@torch.no_grad()
def test_a_live_teacher_answers_in_eval_mode_as_it_would_alone(data: Artifact) -> None:
    alone, examples = network(data, 24), open_split(data, "train")
    index, view = torch.arange(20), torch.ones(20, dtype=torch.int64)
    inputs = show(examples, index, view, VIEWS)
    teacher = LiveTeacher(alone.train(), "d" * 64, {"1": "whole"}, examples.inputs[:2])
    answer = teacher(index, view, inputs)
    assert teacher.layer_shapes == {"1": (24,)}
    assert torch.equal(answer.target.logits, alone(inputs)["logits"].values)  # type: ignore[attr-defined]
    assert not alone.training
    assert teacher.digest == "d" * 64


def test_a_live_teacher_is_not_trained_and_its_answers_can_be_trained_on(data: Artifact) -> None:
    given = trainer(data, epochs=1)
    teacher = given.teachers["train"]  # type: ignore[index]
    assert isinstance(teacher, LiveTeacher)
    before = [value.clone() for value in teacher.network.state_dict().values()]
    given.run_epoch()
    for value, kept in zip(teacher.network.state_dict().values(), before, strict=True):
        assert torch.equal(value, kept)
    answer = teacher(torch.arange(2), torch.zeros(2), open_split(data, "val").inputs[:2])
    regressor = nn.Linear(24, 3)
    regressor(answer.layers["2"]).sum().backward()
    assert regressor.weight.grad is not None
