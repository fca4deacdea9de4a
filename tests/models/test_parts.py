"""Parts of a network that learn at a rate of their own, or not at all."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from torch import nn

from distill_platform.errors import ModelError
from distill_platform.models.network import Network
from distill_platform.models.parts import freeze, frozen_modules, joined, lr_factors, parameter_groups
from tests.models.kinds import model_for


def test_the_deepest_part_that_holds_a_weight_decides() -> None:
    network = model_for("transformer", "text").build()
    factors = lr_factors(network, {"*": 0.5, "blocks.*": 0.1, "blocks.0": 0.1, "blocks.1.mlp": 2.0, "head.bias": 3.0})
    assert factors["embedding.weight"] == 0.5
    assert factors["blocks.0.mlp.0.weight"] == 0.1
    assert factors["blocks.1.attention.in_proj_weight"] == 0.1
    assert factors["blocks.1.mlp.0.weight"] == 2.0
    assert factors["head.weight"] == 0.5
    assert factors["head.bias"] == 3.0
    assert set(lr_factors(network, {}).values()) == {1.0}


def test_groups_hold_every_weight_once_and_frozen_ones_never() -> None:
    network = model_for("resnet", "image").build()
    groups = parameter_groups(network, {"stem": 0, "stages.0": 0.25})
    assert [group["lr_factor"] for group in groups] == [0.25, 1.0]
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    frozen = {id(parameter) for parameter in network.body.stem.parameters()}
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in network.parameters()} - frozen


def test_modules_that_are_frozen_whole_are_named_with_their_norms() -> None:
    network = model_for("resnet", "image").build()
    frozen = frozen_modules(network, {"stem": 0, "stages.0": 0.25})
    assert frozen == [network.body.stem, network.body.stem[0], network.body.stem[1]]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"blcks.*": 0.1}, r"train\.parts: no layer of the student is called 'blcks\.\*'; did you mean"),
        ({"blocks.*": 0.1, "blocks.0": 0.2}, "'blocks.\\*' and 'blocks.0' both name 'blocks.0', and disagree"),
        ({"head": -1}, "train.parts, head: lr_factor is -1, wanted 0"),
        ({"*": 0}, "freezes every weight"),
    ],
)
def test_parts_that_cannot_be_are_refused(parts: dict[str, float], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parameter_groups(model_for("transformer", "text").build(), parts)


def test_a_weight_that_two_layers_share_has_one_factor_by_either_name() -> None:
    model = model_for("mlp", "features")
    body = nn.Sequential(OrderedDict(embedding=nn.Linear(3, 3), head=nn.Linear(3, 3)))
    body.head.weight = body.embedding.weight
    network = Network(body, model.input, model.preprocess)
    for name in ("embedding", "head"):
        assert lr_factors(network, {name: 0})["embedding.weight"] == 0
        assert frozen_modules(network, {"embedding": 0, "head.bias": 0}) == [body, body.embedding, body.head]
    with pytest.raises(ModelError, match=r"embedding.weight and head.weight are one weight, and its parts disagree"):
        lr_factors(network, {"embedding": 0, "head": 1.0})


def test_frozen_weights_take_no_gradient_and_what_learns_beside_joins_the_full_rate() -> None:
    network = model_for("mlp", "features").build()
    freeze(network, {"1": 0})
    frozen = [name for name, parameter in network.body.named_parameters() if not parameter.requires_grad]
    assert frozen == [f"1.{name}" for name, _ in network.body[1].named_parameters()]
    beside = nn.Linear(2, 2)
    groups = joined(parameter_groups(network, {"*": 0.5}), list(beside.parameters()))
    assert [(group["lr_factor"], len(group["params"])) for group in groups][1:] == [(1.0, 2)]
    assert groups[1]["params"] == list(beside.parameters())
