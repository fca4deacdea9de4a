"""The layers of a model, as everything that takes a layer's name knows them."""

from __future__ import annotations

from distill_platform.models.capture import layer_shapes
from distill_platform.models.listing import list_layers
from tests.models.kinds import model_for


def test_layers_have_the_names_and_shapes_that_capture_gives() -> None:
    model = model_for("transformer", "text")
    layers = {layer.name: layer for layer in list_layers(model)}
    block = layers["blocks.1"]
    assert (block.type, block.shape, block.attention) == ("Block", (24, 16), False)
    assert block.num_parameters == sum(p.numel() for p in model.build().body.blocks[1].parameters())
    assert layers["blocks.1.attention"].attention
    assert layers["blocks"].shape is None
    wanted = {name: "whole" for name, layer in layers.items() if layer.shape}
    assert layer_shapes(model, wanted) == {name: layers[name].shape for name in wanted}


def test_attention_that_is_listed_can_be_taken() -> None:
    for name, kind in (("transformer", "tokens"), ("vit", "image"), ("conv1d", "audio")):
        model = model_for(name, kind)
        listed = {f"{layer.name}:attention": "whole" for layer in list_layers(model) if layer.attention}
        assert layer_shapes(model, listed).keys() == listed.keys()
        assert bool(listed) == (name != "conv1d")
