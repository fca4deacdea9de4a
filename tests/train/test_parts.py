"""Parts of a network at a rate of their own: frozen ones stay as they are, and a resumed run ends the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from distill_platform.artifact import Artifact
from distill_platform.data.examples import open_schema, open_split
from distill_platform.data.loader import Loader
from distill_platform.models import Network, Standardize
from distill_platform.objective import Objective
from distill_platform.storage import LocalStorage
from distill_platform.tasks import TASKS
from distill_platform.train import Checkpoints, Trainer, fit
from tests.factory import VIEWS, make_data, settings


class Normed(nn.Sequential):
    """A body with batch norm and dropout in its first part."""

    def __init__(self) -> None:
        super().__init__(
            nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.5)), nn.Linear(16, 8), nn.Linear(8, 3)
        )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return make_data(LocalStorage(tmp_path_factory.mktemp("workspace")))


def trainer(data: Artifact, parts: dict[str, dict[str, float]], **changed: object) -> Trainer:
    schema, given = open_schema(data), settings(parts=parts, **changed)
    torch.manual_seed(0)
    network = Network(Normed(), schema.input, Standardize.of(schema))
    objective = Objective.of(TASKS["classification"], {"task": {"weight": 1.0}})
    train = Loader(open_split(data, "train"), VIEWS, given.batch_size, given.seed)
    return Trainer(network, objective, train, open_split(data, "val"), given)


def test_a_frozen_part_keeps_its_weights_and_its_norms_and_takes_no_gradient(data: Artifact) -> None:
    run = trainer(data, {"0": {"lr_factor": 0}})
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.run_epoch()
    changed = {name for name, value in run.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"body.{layer}.{kind}" for layer in (1, 2) for kind in ("weight", "bias")}
    assert all(parameter.grad is None for parameter in run.network.body[0].parameters())


def test_a_factor_scales_the_rate_of_its_part_at_every_step(data: Artifact) -> None:
    run = trainer(data, {"0": {"lr_factor": 0.1}, "2": {"lr_factor": 3.0}})
    factors = {id(parameter): 1.0 for parameter in run.network.parameters()}
    factors |= {id(parameter): 0.1 for parameter in run.network.body[0].parameters()}
    factors |= {id(parameter): 3.0 for parameter in run.network.body[2].parameters()}
    for _ in range(2):
        run.run_epoch()
        rates = {id(each): group["lr"] for group in run.optimizer.param_groups for each in group["params"]}
        base = max(rates.values()) / 3
        assert rates == pytest.approx({each: base * factor for each, factor in factors.items()})


def test_sgd_moves_a_part_by_its_factor(data: Artifact) -> None:
    moves = []
    for factor in (1.0, 0.25):
        run = trainer(
            data,
            {"2": {"lr_factor": factor}},
            optimizer="sgd",
            momentum=0.0,
            weight_decay=0.0,
            clip_norm=None,
            batch_size=200,
        )
        before = run.network.body[2].weight.detach().clone()
        run.run_epoch()
        moves.append(run.network.body[2].weight.detach() - before)
    assert moves[1] == pytest.approx(moves[0] / 4, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("killed_after", [1, 9])
def test_resumed_training_of_parts_ends_bit_identical(data: Artifact, tmp_path: Path, killed_after: int) -> None:
    parts = {"0": {"lr_factor": 0}, "1": {"lr_factor": 0.5}}
    whole = trainer(data, parts)
    fit(whole, Checkpoints(LocalStorage(tmp_path / "whole")))
    killed, checkpoints = trainer(data, parts), Checkpoints(LocalStorage(tmp_path / "killed"))
    with pytest.raises(KeyboardInterrupt):
        while True:
            killed.run_epoch(after_step=lambda: _stop_after(killed, killed_after))
    checkpoints.save(*killed.state())
    resumed = trainer(data, parts)
    fit(resumed, checkpoints)
    weights = resumed.load_best().state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.load_best().state_dict().items())


def _stop_after(run: Trainer, step: int) -> None:
    if run.step == step:
        raise KeyboardInterrupt
