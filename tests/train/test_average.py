"""A student's own average as its teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distill_platform.artifact import Artifact
from distill_platform.data.examples import open_schema, open_split
from distill_platform.data.loader import Loader
from distill_platform.models import Network, SavedModel, Standardize
from distill_platform.objective import Objective
from distill_platform.storage import LocalStorage
from distill_platform.tasks import TASKS
from distill_platform.train import Trainer
from distill_platform.train.average import AverageTeacher
from tests.factory import VIEWS, make_data, settings

TERMS = {"task": {"weight": 1.0}, "soft_targets": {"weight": 1.0, "temperature": 2.0}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_data(LocalStorage(tmp_path_factory.mktemp("workspace")))


def network_of(data: Artifact) -> Network:
    schema = open_schema(data)
    return SavedModel("mlp", {"hidden": [8]}, schema.input, schema.class_names, Standardize.of(schema)).build(0)


def trainer_of(data: Artifact, decay: float = 0.9) -> Trainer:
    network, given = network_of(data), settings()
    sample = open_split(data, "val").inputs[:2]
    return Trainer(
        network,
        Objective.of(TASKS["classification"], TERMS),
        Loader(open_split(data, "train"), VIEWS, given.batch_size, given.seed),
        open_split(data, "val"),
        given,
        {"train": AverageTeacher(network, decay, {}, sample)},
    )


def test_it_is_the_moving_average_of_the_students_weights(data: Artifact) -> None:
    network = network_of(data)
    average = AverageTeacher(network, 0.9, {}, open_split(data, "val").inputs[:2])
    wanted = {name: value.double() for name, value in network.named_parameters()}
    for step in range(1, 41):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.follow(network, step)
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = {name: decay * wanted[name] + (1 - decay) * value for name, value in network.named_parameters()}
    for name, value in average.network.named_parameters():
        assert torch.allclose(value.double(), wanted[name], atol=1e-5)


def test_it_answers_in_eval_mode_and_takes_no_gradient(data: Artifact) -> None:
    trainer = trainer_of(data)
    trainer.run_epoch()
    average = trainer.teachers["train"]  # type: ignore[index]
    assert isinstance(average, AverageTeacher)
    assert not average.network.training
    answer = average(torch.arange(2), torch.zeros(2, dtype=torch.int64), open_split(data, "val").inputs[:2])
    assert not answer.target.logits.requires_grad  # type: ignore[attr-defined]
    assert all(parameter.grad is None for parameter in average.network.parameters())


def test_validation_has_no_teacher_to_be_close_to(data: Artifact) -> None:
    report = trainer_of(data).run_epoch()
    assert "kl_to_teacher" not in report
    assert report["terms"]["soft_targets"] > 0


def test_a_resumed_student_and_its_average_go_on_bit_identical(data: Artifact, tmp_path: Path) -> None:
    whole, first = trainer_of(data), trainer_of(data)
    whole.run_epoch(), whole.run_epoch()
    first.run_epoch()
    resumed = trainer_of(data)
    resumed.load_state(*first.state())
    resumed.run_epoch()
    got, wanted = resumed.state()[0], whole.state()[0]
    assert got.keys() == wanted.keys()
    assert any(name.startswith("average.") for name in got)
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
