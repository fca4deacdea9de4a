"""Bodies for inputs of any length: padding changes nothing, the future changes nothing, attention can be heard."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill_platform.data.schema import InputSpec
from distill_platform.errors import ModelError
from distill_platform.models import Network, build_body
from distill_platform.models.attention import Attention, rotary_angles
from distill_platform.models.capture import capture
from distill_platform.models.ngrams import MULTIPLIER, PRIME, hashed_ngrams
from tests.models.kinds import INPUTS, model_for, raw_batch

BODIES = [
    ("ngrams", "text", {}),
    ("transformer", "text", {}),
    ("transformer", "text", {"positions": "learned", "pooling": "first"}),
    ("transformer", "tokens", {"tied": True}),
    ("transformer", "tokens", {"positions": "learned"}),
    ("conv1d", "audio", {}),
    ("conv1d", "audio", {"stride": 1, "kernel": 3}),
]


@pytest.mark.parametrize(("name", "kind", "args"), BODIES)
def test_a_sequences_result_does_not_depend_on_how_much_padding_follows(
    name: str, kind: str, args: dict[str, Any]
) -> None:
    network = model_for(name, kind, **args).build().eval()
    prepared = network.preprocess(raw_batch(kind))
    length = int(prepared.mask.any(0).sum())
    assert length <= 0.7 * prepared.mask.shape[1]
    alone = network.body(prepared.values[..., :length], prepared.mask[:, :length])
    padded = network.body(*prepared)
    for row, count in enumerate(prepared.mask.sum(1)):
        one = network.body(prepared.values[row : row + 1, ..., :count], prepared.mask[row : row + 1, :count])
        kept = slice(0, count) if kind == "tokens" else slice(None)
        assert torch.allclose(one[0][kept], padded[row][kept], atol=1e-5)
        assert torch.allclose(alone[row][kept], padded[row][kept], atol=1e-5)


@pytest.mark.parametrize(("name", "kind", "args"), BODIES)
def test_what_stands_in_padding_does_not_matter(name: str, kind: str, args: dict[str, Any]) -> None:
    network = model_for(name, kind, **args).build().eval()
    values, mask = network.preprocess(raw_batch(kind))
    behind = ~(mask if values.ndim == 2 else mask[:, None].expand_as(values))
    other = values.masked_fill(behind, 3)
    wanted, got = network.body(values, mask), network.body(other, mask)
    counted = mask if kind == "tokens" else ...
    assert torch.allclose(wanted[counted], got[counted], atol=1e-5)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_a_language_models_logits_do_not_change_with_later_tokens(positions: str) -> None:
    network = model_for("transformer", "tokens", positions=positions).build().eval()
    raw = torch.randint(0, 11, (2, 12), dtype=torch.int32)
    before = network(raw)["logits"].values
    for at in (3, 7, 11):
        changed = raw.clone()
        changed[:, at:] = (changed[:, at:] + 1) % 11
        after = network(changed)["logits"].values
        assert torch.allclose(before[:, :at], after[:, :at], atol=1e-6)
        assert not torch.allclose(before[:, at], after[:, at], atol=1e-4)


def test_a_text_of_no_bytes_gives_finite_logits() -> None:
    for name in ("ngrams", "transformer"):
        network = model_for(name, "text").build().eval()
        assert torch.isfinite(network(torch.zeros(2, 24, dtype=torch.uint8))["logits"].values).all()


@pytest.mark.parametrize(("name", "kind"), [("transformer", "text"), ("transformer", "tokens"), ("vit", "image")])
def test_attention_weights_are_those_that_the_output_is_made_with(name: str, kind: str) -> None:
    network = model_for(name, kind).build().eval()
    raw = raw_batch(kind)
    listened = capture(network, {"blocks.*.attention:attention": "whole"})(raw)
    assert torch.allclose(listened["logits"], network(raw)["logits"].values, atol=1e-5)
    weights = listened["layer.blocks.1.attention:attention"]
    heads, num_positions = network.body.blocks[1].attention.num_heads, weights.shape[-1]
    assert weights.shape == (5, heads, num_positions, num_positions)
    assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
    if kind == "text":
        assert (weights[0, :, :, int((raw[0] != 0).sum()) :] == 0).all()
    if kind == "tokens":
        assert (weights.triu(1) == 0).all()


def naive_attention(module: Attention, values: Tensor, rotary: bool) -> Tensor:
    """Vaswani et al. 2017, one head, one query and one key at a time; rotary positions as rotations in the plane."""
    (length, width), heads = values.shape, module.num_heads
    size = width // heads
    query, key, value = (values @ part.T for part in module.in_proj_weight.chunk(3))
    joined = torch.zeros(length, width, dtype=values.dtype)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        turned = [vectors[:, part].clone() for vectors in (query, key)]
        for vectors in turned if rotary else ():
            for at in range(length):
                for pair in range(size // 2):
                    angle = torch.tensor(at * 10_000.0 ** (-2 * pair / size), dtype=values.dtype)
                    x, y = vectors[at, pair].item(), vectors[at, pair + size // 2].item()
                    vectors[at, pair] = x * angle.cos() - y * angle.sin()
                    vectors[at, pair + size // 2] = x * angle.sin() + y * angle.cos()
        for at in range(length):
            scores = torch.stack([turned[0][at] @ turned[1][other] for other in range(length)]) / size**0.5
            joined[at, part] = scores.softmax(0) @ value[:, part]
    return joined @ module.out_proj.weight.T


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_attention_is_the_papers(rotary: bool, need_weights: bool) -> None:
    torch.manual_seed(0)
    module = Attention(8, 2, 0.0).double().eval()
    nn.init.zeros_(module.in_proj_bias)
    values = torch.randn(1, 5, 8, dtype=torch.float64)
    angles = rotary_angles(5, 4) if rotary else None
    got, _ = module(values, rotary=angles, need_weights=need_weights)
    assert torch.allclose(got[0], naive_attention(module, values[0], rotary), atol=1e-6)


def test_n_grams_fall_into_the_bucket_of_their_hash_and_none_reaches_into_padding() -> None:
    ids = torch.tensor([[7, 200, 31, 0, 0], [1, 2, 3, 4, 255]])
    for size in (1, 2, 3):
        got = hashed_ngrams(ids, ids != 0, size, 100)
        for row in range(2):
            for at in range(5 - size + 1):
                run = ids[row, at : at + size].tolist()
                value = size
                for id in run:
                    value = (value * MULTIPLIER + id) % PRIME
                assert got[row, at] == (0 if 0 in run else value % 100 + 1)


def test_batches_are_cut_behind_their_longest_sequence_unless_someone_listens() -> None:
    form = InputSpec("text", (100,), "uint8", 0, 255)
    seen = []

    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            seen.append(ids.shape[1])
            return self.inner(ids.double()[..., None] * torch.ones(3))

    network = Network(Body(), form, model_for("transformer", "text").preprocess)
    raw = torch.zeros(2, 100, dtype=torch.uint8)
    raw[0, :17] = 65
    output = network(raw)["logits"]
    assert seen == [32]
    assert output.values.shape == (2, 100, 3)
    assert output.mask is not None
    assert output.mask.sum() == 17
    assert torch.equal(capture(network, {})(raw)["logits"], output.values.float())
    assert seen == [32, 32]
    network.body.inner.register_forward_hook(lambda *_: None)
    assert torch.equal(network(raw)["logits"].values, output.values)
    assert seen == [32, 32, 100]


def test_an_exported_network_takes_sequences_of_any_length() -> None:
    network = model_for("ngrams", "text").build().eval()
    exported = torch.export.export(network, (raw_batch("text"),)).module()
    full = torch.randint(1, 128, (5, 24), dtype=torch.uint8)
    for raw in (raw_batch("text", seed=1), full):
        assert torch.allclose(exported(raw)["logits"][0], network(raw)["logits"].values, atol=1e-5)


@pytest.mark.parametrize(("name", "kind", "args"), BODIES)
def test_bodies_train_in_bfloat16(name: str, kind: str, args: dict[str, Any]) -> None:
    network = model_for(name, kind, **args).build()
    raw = raw_batch(kind)
    with torch.autocast("cpu", torch.bfloat16):
        short = network(raw)["logits"].values
    short.float().square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())
    assert torch.allclose(short.float(), network(raw)["logits"].values, atol=0.05)


@pytest.mark.parametrize(
    ("name", "kind", "args", "message"),
    [
        ("transformer", "text", {"width": 10, "heads": 4}, "width 10, heads 4, depth 2: wanted a width that is a mult"),
        ("transformer", "text", {"width": 12, "heads": 4}, "rotary positions want an even width"),
        ("transformer", "text", {"positions": "relative"}, "wanted positions learned or rotary, pooling mean or first"),
        ("transformer", "text", {"tied": True}, "tied is for tokens"),
        ("vit", "image", {"patch": 3}, "vit patch is 3, wanted a divisor of the image's sides, 8 and 8"),
        ("ngrams", "text", {"sizes": [0]}, "wanted positive whole numbers"),
        ("conv1d", "audio", {"kernel": 4}, "wanted an odd kernel"),
    ],
)
def test_arguments_that_cannot_be_are_refused(name: str, kind: str, args: dict[str, Any], message: str) -> None:
    preprocess = model_for(name, kind).preprocess
    with pytest.raises(ModelError, match=message):
        build_body(name, args, INPUTS[kind], 2, preprocess)
