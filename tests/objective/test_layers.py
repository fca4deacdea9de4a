"""Which layers meet: names, patterns in order, and refusals that list both sides."""

from __future__ import annotations

import pytest

from distill_platform.errors import ModelError
from distill_platform.objective.layers import merged, pair_layers, pooled_shape

TEACHER = ["blocks.0", "blocks.10", "blocks.2", "blocks.2.attn:attention", "blocks.2.attn"]
STUDENT = ["layers.0", "layers.1", "layers.2", "layers.1.attn", "layers.1.attn:attention"]


def pairs(layers: dict[str, str]) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in pair_layers("objective.hint.layers", layers, TEACHER, STUDENT)]  # type: ignore[misc]


def test_names_pair_as_they_are_written() -> None:
    written = {"blocks.10": "layers.2", "blocks.0": "layers.0"}
    assert pairs(written) == [("blocks.10", "layers.2"), ("blocks.0", "layers.0")]


def test_patterns_pair_in_order_with_numbers_by_value() -> None:
    in_order = [("blocks.0", "layers.0"), ("blocks.2", "layers.1"), ("blocks.10", "layers.2")]
    assert pairs({"blocks.*": "layers.?"}) == in_order


def test_attention_weights_pair_with_attention_weights() -> None:
    assert pairs({"blocks.2.attn:attention": "layers.*.attn:attention"}) == [
        ("blocks.2.attn:attention", "layers.1.attn:attention")
    ]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            {"blocks.*": "layers.1"},
            r"3 layers of the teacher \(blocks.0, blocks.2, blocks.10\), 'layers.1' is 1 of the",
        ),
        ({"block.2": "layers.1"}, r"hint.layers: no layer of the teacher is called 'block.2'; did you mean 'blocks.2'"),
        ({"blocks.2": "layer.1"}, r"hint.layers: no layer of the student is called 'layer.1'; did you mean 'layers.1'"),
        (
            {"blocks.2.attn:attention": "layers.1.attn"},
            "pairs attention weights with a layer; wanted :attention on both",
        ),
        ({"blocks.0:attention": "layers.1.attn:attention"}, "no layer of the teacher is called 'blocks.0'"),
    ],
)
def test_what_cannot_pair_is_refused_with_what_there_is(layers: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        pairs(layers)


def test_whole_is_kept_where_one_of_several_wants_it() -> None:
    assert merged({"a": "pooled", "b": "pooled"}, {"b": "whole", "c": "pooled"}, {"b": "pooled"}) == {
        "a": "pooled",
        "b": "whole",
        "c": "pooled",
    }


@pytest.mark.parametrize(
    ("shape", "is_attention", "wanted"),
    [((8,), False, (8,)), ((5, 8), False, (8,)), ((8, 4, 4), False, (8,)), ((2, 5, 5), True, (5, 5))],
)
def test_pooled_shapes(shape: tuple[int, ...], is_attention: bool, wanted: tuple[int, ...]) -> None:
    assert pooled_shape(shape, is_attention) == wanted
