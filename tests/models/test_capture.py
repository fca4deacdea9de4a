"""What a network says inside: named layers, attention maps, and the input of its output layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_platform.data.schema import InputSpec
from distill_platform.errors import ModelError
from distill_platform.models import Ids, Network, Standardize, build_network
from distill_platform.models.capture import capture, output_layer, positions_of, resolve_layers

IMAGE = InputSpec("image", (8, 8, 1), "uint8", 0, 16)
SEQUENCE = InputSpec("features", (6, 16), "float32", -1, 1)
PLAIN = Standardize((0.0,), (1.0,))
IMAGES = torch.arange(3 * 64).reshape(3, 8, 8, 1).remainder(17).to(torch.uint8)
TOKENS = torch.linspace(-1, 1, 3 * 96).reshape(3, 6, 16)


def resnet() -> Network:
    return build_network("resnet", {"depth": 8, "width": 4}, IMAGE, 10, PLAIN, 0).eval()


def of_body(body: nn.Module, input: InputSpec = SEQUENCE) -> Network:
    return Network(body, input, PLAIN).eval()


class Attending(nn.Module):
    """Two transformer blocks, attention by torch's own module."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True) for _ in range(2))
        self.head = nn.Linear(16, 5)

    def forward(self, tokens: Tensor) -> Any:
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.mean(1))


@torch.inference_mode()
def test_layers_are_heard_as_they_are_and_pooled_in_the_pass_that_gives_the_logits() -> None:
    network = resnet()
    wanted = network.body.stages[0](network.body.stem(IMAGES.float().movedim(-1, 1)))  # type: ignore[union-attr,operator,index]
    logits = network(IMAGES)["logits"].values
    whole = capture(network, {"stages.0": "whole"})(IMAGES)
    assert torch.equal(whole["layer.stages.0"], wanted)
    pooled = capture(resnet(), {"stages.0": "pooled"})(IMAGES)
    assert torch.equal(pooled["layer.stages.0"], wanted.mean((2, 3)))
    assert torch.equal(whole["logits"], logits)
    assert torch.equal(pooled["logits"], logits)


@torch.inference_mode()
def test_a_sequence_is_pooled_over_its_positions() -> None:
    network = of_body(Attending())
    found = capture(network, {"blocks.1": "pooled"})(TOKENS)
    whole = capture(network, {"blocks.1": "whole"})(TOKENS)["layer.blocks.1"]
    assert whole.shape == (3, 6, 16)
    assert torch.equal(found["layer.blocks.1"], whole.mean(1))


@torch.inference_mode()
def test_attention_maps_are_distributions_over_positions_and_leave_the_logits() -> None:
    network = of_body(Attending())
    before = network(TOKENS)["logits"].values
    kept = {"blocks.0.self_attn:attention": "whole", "blocks.1.self_attn:attention": "pooled"}
    found = capture(network, kept)(TOKENS)
    each, mean = (found[f"layer.blocks.{block}.self_attn:attention"] for block in (0, 1))
    assert each.shape == (3, 4, 6, 6)
    assert mean.shape == (3, 6, 6)
    assert torch.allclose(each.sum(-1), torch.ones(3, 4, 6))
    assert torch.allclose(mean.sum(-1), torch.ones(3, 6))
    assert each.std() > 0
    assert torch.allclose(found["logits"], before, atol=1e-5)


@torch.inference_mode()
def test_a_layer_is_kept_as_it_was_before_the_next_one_worked_in_place() -> None:
    network = of_body(nn.Sequential(nn.Flatten(), nn.Linear(96, 8), nn.ReLU(inplace=True), nn.Linear(8, 5)))
    kept = capture(network, {"1": "whole"})(TOKENS)["layer.1"]
    assert torch.equal(kept, network.body[1](TOKENS.flatten(1)))  # type: ignore[index,operator]
    assert (kept < 0).any()


def test_patterns_match_within_one_part_of_a_name_and_keep_the_order_of_the_body() -> None:
    assert list(resolve_layers(resnet(), {"stages.?": "pooled", "stem": "whole"})) == [
        "stem",
        "stages.0",
        "stages.1",
        "stages.2",
    ]


def test_a_layer_that_is_named_both_ways_is_taken_whole() -> None:
    wanted = {"stages.0": "pooled", "stages.1": "whole", "stages.2": "pooled"}
    assert resolve_layers(resnet(), {"stages.*": "pooled", "stages.1": "whole"}) == wanted
    assert resolve_layers(resnet(), {"stages.1": "whole", "stages.*": "pooled"}) == wanted


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"stage.2": "pooled"}, r"no layer of the teacher is called 'stage.2'; did you mean 'stages.2'.*it has: stem"),
        ({"stages.0": "mean"}, "cache.layers, stages.0: got 'mean', wanted pooled or whole"),
    ],
)
def test_layers_that_cannot_be_meant_are_refused(layers: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resolve_layers(resnet(), layers)


class Odd(nn.Module):
    """Layers that cannot be kept."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.never, self.turned = nn.Linear(16, 16), nn.Linear(16, 16), Turned()
        self.head = nn.Linear(16, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.softmax(self.head(self.turned(self.twice(self.twice(tokens))).mean(0)), -1)


class Turned(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.movedim(0, 1)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("twice", "layer 'twice' is called 2 times in one pass, wanted once"),
        ("never", "layer 'never' is called 0 times"),
        ("turned", r"layer 'turned' gives \[6, 3, 16\] for 3 inputs, wanted the batch as first axis"),
        ("head:attention", "layer 'head:attention' gives Tensor, wanted attention weights as the second of its values"),
    ],
)
def test_layers_that_are_not_rows_of_the_batch_are_refused(layer: str, message: str) -> None:
    with pytest.raises(ModelError, match=message), torch.inference_mode():
        capture(of_body(Odd()), {layer: "whole"})(TOKENS)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_the_output_layer_makes_the_logits_of_what_goes_into_it(name: str) -> None:
    args = {"resnet": {"depth": 8}}.get(name, {})
    network = build_network(name, args, IMAGE, 10, PLAIN, 0).eval()
    found = output_layer(network, IMAGES)
    heard = capture(network, {}, found.name)(IMAGES)
    assert torch.equal(F.linear(heard["hidden"], found.weight, found.bias), heard["logits"])


def test_logits_that_no_linear_layer_gives_are_refused_for_codec_head() -> None:
    with pytest.raises(ModelError, match="not the output of a linear layer.*codec head.*set cache.codec to another"):
        output_layer(of_body(Odd()), TOKENS)


class Padded(nn.Module):
    """A body over ids with padding: an embedding, a layer in place behind it, and the mean of what counts."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.relu, self.head = nn.Embedding(256, 8), nn.ReLU(inplace=True), nn.Linear(8, 5)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        tokens = self.relu(self.embedding(ids)) * mask[..., None]
        return self.head(tokens.sum(1) / mask.sum(1, keepdim=True))


TEXT = torch.tensor([[65, 66, 67, 0, 0, 0], [70, 71, 72, 73, 74, 75]], dtype=torch.uint8)


def test_a_pooled_sequence_leaves_padding_out() -> None:
    network = Network(Padded(), InputSpec("text", (6,), "uint8", 0, 255), Ids(256)).eval()
    found = capture(network, {"embedding": "pooled"}).answer(TEXT)
    tokens = network.body.embedding.weight[TEXT.long()]  # type: ignore[union-attr,index]
    assert found.mask is not None
    assert found.mask.tolist() == [[True] * 3 + [False] * 3, [True] * 6]
    assert torch.allclose(found.layers["embedding"][0], tokens[0, :3].mean(0))
    assert torch.allclose(found.layers["embedding"][1], tokens[1].mean(0))


def test_gradients_flow_through_layers_in_training_and_under_autocast() -> None:
    network = resnet().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = capture(network, {"stages.0": "whole", "stages.2": "pooled"}).answer(IMAGES)
    assert {values.dtype for values in answer.layers.values()} == {torch.float32}
    (answer.layers["stages.0"] ** 2).sum().backward()
    reached = {name.partition(".")[0] for name, each in network.body.named_parameters() if each.grad is not None}
    assert reached == {"stem", "stages"}
    assert all(
        parameter.grad is None
        for stage in network.body.stages[1:]
        for parameter in stage.parameters()  # type: ignore[union-attr,index]
    )


def test_nothing_stays_on_the_network_after_a_call_or_a_fault() -> None:
    network = of_body(Odd())
    with pytest.raises(ModelError, match="layer 'never' is called 0 times"):
        capture(network, {"never": "whole"}).answer(TOKENS)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    attending = of_body(Attending())
    capture(attending, {"blocks.0.self_attn:attention": "whole"}, "head")(TOKENS)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in attending.modules())


def test_a_layer_whose_forward_takes_output_attentions_is_asked_for_its_weights() -> None:
    class Own(nn.Module):
        def forward(self, tokens: Tensor, output_attentions: bool = False) -> Any:
            scores = torch.softmax(tokens @ tokens.mT, -1)
            return (scores @ tokens, scores) if output_attentions else (scores @ tokens, None)

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = Own(), nn.Linear(16, 5)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.attention(tokens)[0].mean(1))

    found = capture(of_body(Body()), {"attention:attention": "whole"}).answer(TOKENS)
    assert torch.allclose(found.layers["attention:attention"].sum(-1), torch.ones(3, 6))


def test_convolutions_over_padded_sequences_become_sequences_with_the_mask_of_their_stride() -> None:
    class Strided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.head = nn.Conv1d(1, 7, 3, stride=2, padding=1), nn.Linear(7, 5)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            return self.head(self.convolution((ids * mask)[:, None].float()).mean(-1))

    network = Network(Strided(), InputSpec("text", (6,), "uint8", 0, 255), Ids(256)).eval()
    whole = capture(network, {"convolution": "whole"}).answer(TEXT).layers["convolution"]
    assert whole.shape == (2, 3, 7)
    pooled = capture(network, {"convolution": "pooled"}).answer(TEXT).layers["convolution"]
    assert torch.allclose(pooled[0], whole[0, :2].mean(0))  # positions 0 and 2 of three letters
    assert torch.allclose(pooled[1], whole[1].mean(0))
    assert positions_of(3, torch.ones(2, 6)) is not None
    assert positions_of(4, torch.ones(2, 6)) is None
