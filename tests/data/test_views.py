from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_platform.data.draws import BELL_STD, bell, draw_many, streams
from distill_platform.data.resample import ONE, STEPS_PER_DEGREE, sines
from distill_platform.data.schema import InputSpec
from distill_platform.data.transforms import TRANSFORMS
from distill_platform.data.views import Views, augment, view_of_epoch
from distill_platform.errors import DataError

GREY = InputSpec("image", (9, 7, 1), "uint8", 0.0, 255.0)
COLOUR = InputSpec("image", (8, 8, 3), "uint8", 0.0, 255.0)
TABLE = InputSpec("features", (3,), "float32", -5.0, 500.0, ("a", "b", "c"), (1.0, 10.0, 500.0))
ALL = [
    {"name": "shift", "pixels": 2},
    {"name": "flip"},
    {"name": "rotation", "degrees": 20},
    {"name": "crop", "pixels": 1},
    {"name": "colour", "brightness": 0.2, "contrast": 0.3},
    {"name": "noise", "std": 0.05},
]


def batch(spec: InputSpec, num: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(0, 256, (num, *spec.shape), generator=generator).to(getattr(torch, spec.dtype))
    return inputs, torch.randint(0, 256, (num, 16), generator=generator).to(torch.uint8)


def only(name: str, spec: InputSpec, num: int = 400, **arguments: float) -> tuple[np.ndarray, np.ndarray]:
    inputs, keys = batch(spec, num)
    views = Views.of(2, 0, [{"name": name, **arguments}])
    return inputs.numpy(), augment(inputs, keys, torch.ones(num, dtype=torch.int64), views, spec).numpy()


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 90), st.integers(0, 2**32), st.sampled_from([GREY, COLOUR]), st.data())
def test_a_view_does_not_depend_on_the_batch_it_is_in(
    num: int, seed: int, spec: InputSpec, data: st.DataObject
) -> None:
    inputs, keys = batch(spec, num, seed)
    view = torch.arange(num) % 4
    views = Views.of(4, seed, ALL)
    whole = augment(inputs, keys, view, views, spec)
    order = torch.tensor(data.draw(st.permutations(range(num))))
    cut = data.draw(st.integers(1, num - 1))
    for rows in (order, order[:cut], order[cut:], order[:1]):
        assert torch.equal(augment(inputs[rows], keys[rows], view[rows], views, spec), whole[rows])


def test_views_are_the_same_bits_in_every_release_and_on_every_machine() -> None:
    digests = []
    for spec in (GREY, COLOUR):
        inputs = (torch.arange(300 * math.prod(spec.shape)) * 37 % 251).to(torch.uint8).reshape(300, *spec.shape)
        keys = (torch.arange(300 * 16) * 101 % 253).to(torch.uint8).reshape(300, 16)
        shown = augment(inputs, keys, torch.arange(300) % 5, Views.of(5, 7, ALL), spec)
        digests.append(hashlib.sha256(shown.numpy().tobytes()).hexdigest()[:16])
    assert digests == PINNED


def test_view_0_is_the_example_itself_and_the_input_is_left_alone() -> None:
    inputs, keys = batch(GREY, 20)
    before = inputs.clone()
    shown = augment(inputs, keys, torch.arange(20) % 2, Views.of(2, 0, ALL), GREY)
    assert torch.equal(shown[::2], before[::2])
    assert not torch.equal(shown[1::2], before[1::2])
    assert torch.equal(inputs, before)


def test_view_number_seed_and_key_each_change_what_is_shown() -> None:
    inputs, keys = batch(GREY, 1)
    inputs, keys = inputs.repeat(2, 1, 1, 1), keys.repeat(2, 1)
    views = Views.of(3, 0, ALL)
    one, other = augment(inputs, keys, torch.tensor([1, 2]), views, GREY)
    assert not torch.equal(one, other)
    assert not torch.equal(augment(inputs, keys, torch.tensor([1, 2]), Views.of(3, 1, ALL), GREY)[0], one)
    keys[0, 15] ^= 1
    assert not torch.equal(augment(inputs, keys, torch.tensor([1, 2]), views, GREY)[0], one)


def test_shift_moves_whole_pixels_every_way_and_brings_background_in() -> None:
    inputs, shown = only("shift", GREY, pixels=1)
    seen = set()
    for before, after in zip(inputs[..., 0], shown[..., 0], strict=True):
        padded = np.pad(before, 1)
        matches = [(y, x) for y in range(3) for x in range(3) if np.array_equal(padded[y : y + 9, x : x + 7], after)]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 9


def test_crop_fills_from_the_mirrored_image() -> None:
    inputs, shown = only("crop", COLOUR, pixels=2)
    for before, after in zip(inputs, shown, strict=True):
        padded = np.pad(before, ((2, 2), (2, 2), (0, 0)), mode="reflect")
        windows = [padded[y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
        assert any(np.array_equal(window, after) for window in windows)


def test_flip_mirrors_left_to_right_as_often_as_asked() -> None:
    inputs, shown = only("flip", COLOUR, probability=0.25)
    mirrored = [np.array_equal(after, before[:, ::-1]) for before, after in zip(inputs, shown, strict=True)]
    assert all(m or np.array_equal(a, b) for m, a, b in zip(mirrored, inputs, shown, strict=True))
    assert 60 <= sum(mirrored) <= 140
    assert all(np.array_equal(a, b[:, ::-1]) for a, b in zip(*only("flip", COLOUR, probability=1), strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(*only("flip", COLOUR, probability=0), strict=True))


def test_rotation_agrees_with_a_naive_bilinear_loop() -> None:
    inputs, keys = batch(GREY, 12)
    shown = augment(inputs, keys, torch.ones(12, dtype=torch.int64), Views.of(2, 0, [ROTATION]), GREY).numpy()
    for before, after in zip(inputs.numpy()[..., 0], shown[..., 0], strict=True):
        errors = [np.abs(naive_rotation(before, degrees / 16) - after).max() for degrees in range(-640, 641)]
        assert min(errors) <= 3  # weights are multiples of 1/128


def naive_rotation(image: np.ndarray, degrees: float) -> np.ndarray:
    """Counter-clockwise, one output pixel at a time."""
    height, width = image.shape
    sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    padded = np.pad(image.astype(float), 20)
    rotated = np.empty((height, width))
    for row in range(height):
        for column in range(width):
            across, down = column - (width - 1) / 2, row - (height - 1) / 2
            x, y = cos * across - sin * down + (width - 1) / 2, sin * across + cos * down + (height - 1) / 2
            left, top = math.floor(x), math.floor(y)
            right, below = x - left, y - top
            corners = padded[top + 20 : top + 22, left + 20 : left + 22]
            rotated[row, column] = np.array([1 - below, below]) @ corners @ np.array([1 - right, right])
    return rotated


def test_no_sine_is_so_near_a_rounding_boundary_that_a_libm_could_move_it() -> None:
    exact = [ONE * math.sin(math.radians(step / STEPS_PER_DEGREE)) for step in range(360 * STEPS_PER_DEGREE)]
    assert min(abs(abs(value - math.floor(value)) - 0.5) for value in exact) > 1e-6
    assert sines()[90 * STEPS_PER_DEGREE] == ONE


def test_moves_are_sampled_once() -> None:
    inputs, keys = batch(GREY, 50)
    there_and_back = Views.of(2, 0, [{"name": "flip", "probability": 1}, {"name": "flip", "probability": 1}])
    assert torch.equal(augment(inputs, keys, torch.ones(50, dtype=torch.int64), there_and_back, GREY), inputs)


def test_colour_stays_in_the_range_of_the_image() -> None:
    spec = InputSpec("image", (8, 8, 1), "uint8", 0.0, 16.0)
    inputs, keys = batch(spec, 100)
    views = Views.of(2, 0, [{"name": "colour", "brightness": 0.5, "contrast": 0.5}])
    shown = augment(inputs % 17, keys, torch.ones(100, dtype=torch.int64), views, spec)
    assert shown.max() <= 16
    assert not torch.equal(shown, inputs % 17)


def test_noise_has_the_spread_asked_for() -> None:
    spec = InputSpec("image", (20, 20, 1), "uint8", 0.0, 255.0)
    inputs, keys = torch.full((200, 20, 20, 1), 128, dtype=torch.uint8), batch(spec, 200)[1]
    views = Views.of(2, 0, [{"name": "noise", "std": 0.1}])
    shown = augment(inputs, keys, torch.ones(200, dtype=torch.int64), views, spec).numpy().astype(float)
    assert shown.mean() == pytest.approx(128, abs=0.5)
    assert shown.std() == pytest.approx(25.5, rel=0.02)


def test_features_are_disturbed_by_a_fraction_of_their_own_range() -> None:
    inputs, keys = torch.zeros(4000, 3), batch(TABLE, 4000)[1]
    views = Views.of(2, 0, [{"name": "noise", "std": 0.1}])
    shown = augment(inputs, keys, torch.ones(4000, dtype=torch.int64), views, TABLE)
    assert shown.std(dim=0).tolist() == pytest.approx([0.1, 1.0, 50.0], rel=0.05)


def test_bell_has_the_mean_and_deviation_it_states() -> None:
    states = streams(batch(GREY, 500)[1].numpy(), np.ones(500, np.int64), 0)
    values = bell(draw_many(states, 400)).astype(float)
    assert values.mean() == pytest.approx(0, abs=2)
    assert values.std() == pytest.approx(BELL_STD, rel=0.01)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(0, 30))
def test_an_example_meets_every_view_once_in_as_many_epochs(num_views: int, first: int) -> None:
    keys = batch(GREY, 30)[1]
    views = Views(num_views, 3)
    met = torch.stack([view_of_epoch(keys, epoch, views) for epoch in range(first, first + num_views)])
    assert (met.sort(dim=0).values == torch.arange(num_views)[:, None]).all()
    assert torch.equal(view_of_epoch(keys[7:9], first, views), met[0][7:9])


def test_examples_meet_the_views_in_orders_of_their_own() -> None:
    met = view_of_epoch(batch(GREY, 400)[1], 0, Views(4, 0))
    assert all(60 < count < 140 for count in torch.bincount(met, minlength=4).tolist())


def test_faulty_transforms_are_named_all_at_once() -> None:
    with pytest.raises(DataError) as error:
        Views.of(2, 0, [{"name": "shft", "pixels": 1}, {"name": "shift", "pixel": 1}, {"name": "noise", "std": 7}])
    message = str(error.value)
    assert "views.transforms[0].name is 'shft'; did you mean 'shift'?" in message
    assert "shift takes no 'pixel'; did you mean 'pixels'?" in message
    assert "shift needs 'pixels', from 1 to 1024" in message
    assert "views.transforms[2].std is 7; wanted from 0 to 1" in message


def test_views_without_transforms_and_parts_of_pixels_are_refused() -> None:
    with pytest.raises(DataError, match="views.num is 3 without any transform"):
        Views.of(3, 0, [])
    with pytest.raises(DataError, match="views.num is 0; wanted 1"):
        Views.of(0, 0, [])
    with pytest.raises(DataError, match=r"pixels is 1.5; wanted a whole number"):
        Views.of(2, 0, [{"name": "shift", "pixels": 1.5}])


@pytest.mark.parametrize("transform", [ALL[0], {"name": "cutmix", "alpha": 1}])
def test_features_take_noise_and_mixup_alone(transform: dict[str, Any]) -> None:
    inputs, keys = batch(TABLE, 2)
    wanted = rf"{transform['name']} cannot be applied to inputs of kind 'features'.*allowed there: mixup, noise"
    with pytest.raises(DataError, match=wanted):
        augment(inputs, keys, torch.ones(2, dtype=torch.int64), Views.of(2, 0, [transform]), TABLE)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_a_mix_without_an_alpha_or_with_a_useless_one_is_refused(name: str) -> None:
    with pytest.raises(DataError, match=f"{name} needs 'alpha', from 0.01 to 100"):
        Views.of(2, 0, [{"name": name}])
    for alpha in (0, -1, 101, math.inf, math.nan):
        with pytest.raises(DataError, match=rf"transforms\[0\].alpha is {alpha:g}; wanted from 0.01 to 100"):
            Views.of(2, 0, [{"name": name, "alpha": alpha}])
    with pytest.raises(DataError, match=r"transforms\[0\].probability is 2; wanted from 0 to 1"):
        Views.of(2, 0, [{"name": name, "alpha": 1, "probability": 2}])


def test_views_mix_only_where_a_view_beside_the_example_itself_is_mixed() -> None:
    mixup = {"name": "mixup", "alpha": 1}
    assert Views.of(2, 0, [ALL[0], mixup]).mixes
    assert not Views.of(1, 0, [mixup]).mixes
    assert not Views.of(2, 0, [ALL[0]]).mixes


def test_every_transform_is_a_move_a_change_or_a_mix() -> None:
    assert all(sum(part is not None for part in (t.move, t.change, t.mix)) == 1 for t in TRANSFORMS.values())


ROTATION = {"name": "rotation", "degrees": 40}
PINNED = ["31533bc8c60d3b14", "55c6b089f9d7c57c"]
