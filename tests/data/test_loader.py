"""Batches: an order that is a function of (seed, epoch), inputs as their view shows them, labels that go with them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from distill_platform.data.examples import Examples
from distill_platform.data.loader import Batch, Loader
from distill_platform.data.mixing import pairs, show
from distill_platform.data.schema import InputSpec, Schema
from distill_platform.data.views import Views, view_of_epoch

SPEC = InputSpec("image", (6, 6, 1), "uint8", 0.0, 255.0)
PLAIN = Views.of(3, 0, [{"name": "flip"}])
MIXING = Views.of(3, 0, [{"name": "flip"}, {"name": "mixup", "alpha": 1}, {"name": "cutmix", "alpha": 1}])


@pytest.fixture
def examples() -> Examples:
    generator = torch.Generator().manual_seed(0)
    keys = torch.randint(0, 256, (101, 16), generator=generator).to(torch.uint8)
    inputs = torch.randint(0, 256, (101, *SPEC.shape), generator=generator).to(torch.uint8)
    labels = torch.randint(0, 10, (101,), generator=generator)
    return Examples(Schema(SPEC, tuple("abcdefghij"), {}, (0.0,), (1.0,)), keys, inputs, labels)


def batches(examples: Examples, views: Views, epoch: int = 0, start: int = 0, size: int = 20) -> list[Batch]:
    return list(Loader(examples, views, size, seed=3).batches(epoch, start))


def test_an_epoch_meets_every_example_once_in_an_order_of_its_own(examples: Examples) -> None:
    orders = [torch.cat([batch.index for batch in batches(examples, PLAIN, epoch, size=17)]) for epoch in (0, 1)]
    assert all(order.sort().values.tolist() == list(range(101)) for order in orders)
    assert not torch.equal(*orders)


def test_a_last_batch_of_one_is_left_out(examples: Examples) -> None:
    assert [len(batch.index) for batch in batches(examples, PLAIN)] == [20] * 5
    assert [len(batch.index) for batch in batches(examples, PLAIN, size=99)] == [99, 2]


@pytest.mark.parametrize("views", [PLAIN, MIXING])
def test_any_position_can_be_returned_to(examples: Examples, views: Views) -> None:
    whole, rest = batches(examples, views, epoch=4), batches(examples, views, epoch=4, start=2)
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one.index, other.index)
        assert torch.equal(one.inputs, other.inputs)


@pytest.mark.parametrize("views", [PLAIN, MIXING])
def test_inputs_are_what_the_view_of_the_epoch_shows(examples: Examples, views: Views) -> None:
    for batch in batches(examples, views, epoch=1):
        assert torch.equal(batch.view, view_of_epoch(examples.keys[batch.index], 1, views))
        assert torch.equal(batch.inputs, show(examples, batch.index, batch.view, views))
        assert torch.equal(batch.labels, examples.labels[batch.index])


def test_labels_of_what_is_mixed_in_come_with_its_share(examples: Examples) -> None:
    for batch in batches(examples, MIXING, epoch=1):
        drawn = pairs(examples, batch.index, batch.view, MIXING)
        assert batch.mixed is not None
        assert torch.equal(batch.mixed.partner, examples.labels[drawn.partner])
        assert torch.equal(batch.mixed.weight, drawn.weight)
        assert bool((batch.mixed.weight[batch.view == 0] == 1).all())
        assert bool((batch.mixed.weight[batch.view > 0] < 1).any())


def test_views_that_do_not_mix_come_with_one_label(examples: Examples) -> None:
    assert all(batch.mixed is None for batch in batches(examples, PLAIN))
    alone = dataclasses.replace(MIXING, num=1)
    assert all(batch.mixed is None for batch in batches(examples, alone))
