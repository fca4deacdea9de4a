"""Parts of a network that learn at a rate of their own, or not at all."""

from __future__ import annotations

import pytest

from distill_platform.errors import ModelError
from distill_platform.models.parts import frozen_modules, lr_factors, parameter_groups
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
