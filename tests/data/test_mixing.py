"""Mixed views: whom, how much and where are functions of the example, the view and the split, to the last bit."""

from __future__ import annotations

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from distill_platform.data.blending import beta_boundaries
from distill_platform.data.examples import Examples
from distill_platform.data.mixing import pairs, show, show_with_pairs
from distill_platform.data.schema import InputSpec, Schema
from distill_platform.data.views import Views, augment
from distill_platform.errors import DataError

GREY = InputSpec("image", (9, 7, 1), "uint8", 0.0, 255.0)
COLOUR = InputSpec("image", (6, 8, 3), "uint8", 0.0, 255.0)
FLOATS = InputSpec("image", (5, 5, 1), "float32", 0.1, 0.7)
TABLE = InputSpec("features", (3,), "float32", -5.0, 500.0, ("a", "b", "c"), (1.0, 10.0, 500.0))
MIXUP = {"name": "mixup", "alpha": 0.4}
CUTMIX = {"name": "cutmix", "alpha": 1.0}
IMAGES = [{"name": "shift", "pixels": 1}, {"name": "flip"}, {"name": "noise", "std": 0.05}, MIXUP, CUTMIX]
FEATURES = [{"name": "noise", "std": 0.05}, {**MIXUP, "probability": 0.8}]


def split(spec: InputSpec, num: int, seed: int = 0) -> Examples:
    """Random examples; their labels are their rows."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randint(0, 256, (num, 16), generator=generator).to(torch.uint8)
    steps = torch.randint(0, 256, (num, *spec.shape), generator=generator)
    inputs = steps.to(torch.uint8) if spec.dtype == "uint8" else spec.low + steps * ((spec.high - spec.low) / 255)
    schema = Schema(spec, ("one", "other"), {}, (0.0,), (1.0,))
    return Examples(schema, keys, inputs.to(getattr(torch, spec.dtype)), torch.arange(num))


def every(examples: Examples, view: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    index = torch.arange(len(examples))
    return index, torch.full_like(index, view)


def transforms_for(spec: InputSpec) -> list[dict[str, Any]]:
    return FEATURES if spec.kind == "features" else IMAGES


def digest(*tensors: torch.Tensor) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()[:16]


def test_mixed_views_are_the_same_bits_in_every_release_and_on_every_machine() -> None:
    digests = {}
    for name, spec in {"grey": GREY, "colour": COLOUR, "floats": FLOATS, "table": TABLE}.items():
        count = 300 * math.prod(spec.shape)
        steps = (torch.arange(count) * 37 % 251).reshape(300, *spec.shape)
        inputs = (steps / 512 + 0.125 if spec is FLOATS else steps).to(getattr(torch, spec.dtype))
        keys = (torch.arange(300 * 16) * 101 % 253).to(torch.uint8).reshape(300, 16)
        examples = Examples(Schema(spec, ("a", "b"), {}, (0.0,), (1.0,)), keys, inputs, torch.zeros(300))
        shown, drawn = show_with_pairs(
            examples, torch.arange(300), torch.arange(300) % 5, Views.of(5, 7, transforms_for(spec))
        )
        digests[name] = digest(shown, drawn.partner, drawn.weight)
    assert digests == PINNED


images = st.builds(
    lambda height, width, channels, dtype: InputSpec("image", (height, width, channels), dtype, 0.0, 255.0),
    *(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]), st.sampled_from(["uint8", "float32"])),
)
tables = st.integers(1, 9).map(lambda size: InputSpec("features", (size,), "float32", 0.0, 255.0, (), (255.0,) * size))


@settings(max_examples=40, deadline=None)
@given(images | tables, st.integers(1, 60), st.integers(0, 2**32), st.data())
def test_what_a_view_shows_depends_on_nothing_but_example_view_and_split(
    spec: InputSpec, num: int, seed: int, data: st.DataObject
) -> None:
    examples = split(spec, num, seed)
    views = Views.of(4, seed, [{**MIXUP, "alpha": 1.0}] if spec.kind == "features" else [IMAGES[0], MIXUP, CUTMIX])
    index = torch.arange(num).repeat_interleave(4)
    view = torch.arange(4).repeat(num)
    whole, drawn = show(examples, index, view, views), pairs(examples, index, view, views)
    rows = torch.tensor(data.draw(st.permutations(range(len(index)))))
    for part in rows.split(data.draw(st.integers(1, len(index)))):
        assert torch.equal(show(examples, index[part], view[part], views), whole[part])
        again = pairs(examples, index[part], view[part], views)
        assert torch.equal(again.partner, drawn.partner[part])
        assert torch.equal(again.weight, drawn.weight[part])
    assert torch.equal(whole[::4], examples.inputs)
    assert torch.equal(drawn.weight == 1, drawn.partner == index)
    assert bool(((drawn.weight >= 0) & (drawn.partner >= 0) & (drawn.partner < num)).all())


def test_threads_change_nothing() -> None:
    examples, views = split(COLOUR, 4000), Views.of(3, 0, IMAGES)
    index, view = every(examples)
    wanted = show(examples, index, view, views)
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(lambda rows: show(examples, index[rows], view[rows], views), index.split(500))
        assert torch.equal(torch.cat(list(parts)), wanted)


def test_pairs_of_a_whole_split_are_those_of_its_parts() -> None:
    examples, views = split(TABLE, 20_000), Views.of(2, 0, FEATURES)
    index, view = every(examples)
    whole, end = pairs(examples, index, view, views), pairs(examples, index[-50:], view[-50:], views)
    assert torch.equal(whole.partner[-50:], end.partner)
    assert torch.equal(whole.weight[-50:], end.weight)


def test_a_partner_is_any_other_example_as_likely_and_never_the_example_itself() -> None:
    examples, views = split(TABLE, 20), Views.of(2001, 0, [{"name": "mixup", "alpha": 8}])
    index = torch.arange(20).repeat_interleave(2000)
    drawn = pairs(examples, index, torch.arange(1, 2001).repeat(20), views)
    assert bool((drawn.partner != index).all())
    counts = torch.bincount(index * 20 + drawn.partner, minlength=400).reshape(20, 20)
    others = counts[~torch.eye(20, dtype=torch.bool)]
    assert stats.chisquare(others.numpy()).pvalue > 0.001


def test_an_example_alone_in_its_split_stays_as_it_is() -> None:
    examples, views = split(GREY, 1), Views.of(2, 0, [MIXUP, CUTMIX])
    index, view = every(examples)
    assert torch.equal(show(examples, index, view, views), examples.inputs)
    drawn = pairs(examples, index, view, views)
    assert (drawn.partner.tolist(), drawn.weight.tolist()) == ([0], [1.0])


def test_view_0_is_the_example_itself_and_the_examples_are_left_alone() -> None:
    examples, views = split(GREY, 50), Views.of(2, 0, [{"name": "mixup", "alpha": 8}])
    before = examples.inputs.clone()
    index = torch.arange(50)
    shown = show(examples, index, index % 2, views)
    assert torch.equal(shown[::2], before[::2])
    assert not (shown[1::2] == before[1::2]).flatten(1).all(1).any()
    assert torch.equal(examples.inputs, before)
    assert bool((pairs(examples, index, index * 0, views).weight == 1).all())


@pytest.mark.parametrize("alpha", [0.2, 0.5, 1.0, 2.0, 8.0])
def test_mixup_weights_follow_the_symmetric_beta_distribution(alpha: float) -> None:
    examples, views = split(TABLE, 20_000), Views.of(2, 0, [{"name": "mixup", "alpha": alpha}])
    weight = pairs(examples, *every(examples), views).weight.double().numpy()
    kept = np.round(weight * 256)
    assert np.array_equal(kept / 256, weight)
    bins = np.arange(256)
    found = np.searchsorted(np.sort(kept), bins, side="right") / len(kept)
    # Kolmogorov-Smirnov; at the edges of what is rounded alike the two distributions have to agree
    assert stats.kstwo.sf(np.abs(found - stats.beta(alpha, alpha).cdf((bins + 0.5) / 256)).max(), len(kept)) > 0.001
    assert stats.ttest_1samp(weight, 0.5).pvalue > 0.001


@pytest.mark.parametrize("alpha", [0.01, 0.2, 0.5, 1.0, 3.7, 32.0, 100.0])
def test_the_chances_of_each_weight_are_those_of_scipy(alpha: float) -> None:
    chances = beta_boundaries(alpha)
    wanted = special.betainc(alpha, alpha, (np.arange(256) + 0.5) / 256)
    assert np.abs(chances / 2**32 - wanted).max() < 2**-32
    assert np.array_equal(chances, np.uint64(2**32) - chances[::-1])


def test_the_chances_are_pinned_since_no_machine_can_move_them() -> None:
    assert hashlib.sha256(beta_boundaries(0.2).astype("<u8").tobytes()).hexdigest()[:16] == PINNED_CHANCES


@pytest.mark.parametrize("spec", [GREY, COLOUR, FLOATS, TABLE], ids=["grey", "colour", "floats", "table"])
def test_mixup_is_the_weighted_sum_of_both_as_the_other_transforms_show_them(spec: InputSpec) -> None:
    others = [{"name": "noise", "std": 0.05}] if spec.kind == "features" else IMAGES[:3]
    examples, views = split(spec, 200), Views.of(3, 0, [*others, {"name": "mixup", "alpha": 1}])
    index, view = every(examples, view=2)
    shown, drawn = show_with_pairs(examples, index, view, views)
    alone = augment(examples.inputs, examples.keys, view, Views.of(3, 0, others), spec).numpy()
    assert not np.array_equal(alone, examples.inputs.numpy())
    for row in range(len(examples)):
        weight, own, partner = float(drawn.weight[row]), alone[row].astype(float), alone[drawn.partner[row]]
        wanted = weight * own + (1 - weight) * partner
        if spec.dtype == "uint8":
            assert np.array_equal(shown[row].numpy(), np.floor(wanted + 0.5))
        else:
            assert np.allclose(shown[row].numpy(), wanted, rtol=0, atol=3e-7 * np.abs(alone).max())


def test_mixed_float_images_stay_in_the_range_of_the_data() -> None:
    high = np.float32(0.08194705)  # high * w + high * (1 - w) is a bit more for some weights
    spec = InputSpec("image", (1, 1, 1), "float32", 0.0, float(high))
    examples, views = split(spec, 3000), Views.of(2, 0, [{"name": "mixup", "alpha": 1}])
    examples.inputs[:] = float(high)
    weight = pairs(examples, *every(examples), views).weight.numpy()
    assert (high * weight + high * (1 - weight)).max() > high
    assert float(show(examples, *every(examples), views).max()) <= high


def test_cutmix_weight_is_the_share_of_pixels_that_are_the_examples_own() -> None:
    spec = InputSpec("image", (6, 9, 3), "uint8", 0.0, 255.0)
    examples, views = split(spec, 250), Views.of(2, 0, [CUTMIX])
    rows = examples.labels.to(torch.uint8)[:, None, None, None].expand(examples.inputs.shape)  # each of one colour
    plain = Examples(examples.schema, examples.keys, rows.contiguous(), examples.labels)
    index, view = every(plain)
    shown, drawn = show_with_pairs(plain, index, view, views)
    for row, image in enumerate(shown.numpy()):
        own = image == row
        assert drawn.weight[row] == np.float32(own.sum() / own.size)
        assert bool((image[~own] == int(drawn.partner[row])).all())
        assert np.array_equal(~own, rectangle_around(~own))
    assert len(drawn.weight.unique()) > 20


def rectangle_around(mask: np.ndarray) -> np.ndarray:
    """[H, W, C]: the smallest rectangle, over all channels, that holds what is set."""
    filled = np.zeros_like(mask)
    if mask.any():
        (top, bottom), (left, right) = ((axis.min(), axis.max() + 1) for axis in np.nonzero(mask)[:2])
        filled[top:bottom, left:right] = True
    return filled


def test_cutmix_boxes_are_everywhere_and_have_the_share_of_their_draw_where_they_fit() -> None:
    spec = InputSpec("image", (64, 64, 1), "uint8", 0.0, 255.0)
    examples = split(spec, 4000)
    blank = Examples(examples.schema, examples.keys, torch.zeros_like(examples.inputs), examples.labels)
    blank.inputs[1::2] = 255
    views = Views.of(2, 0, [{"name": "cutmix", "alpha": 100}])  # shares near 1/2: boxes of about 45 pixels
    shown, drawn = show_with_pairs(blank, *every(blank), views)
    found = (shown != blank.inputs).double().mean(0)[..., 0].numpy()  # half the partners are of the other kind
    centres, pixels = np.arange(64), np.arange(64)[:, None]
    covered = (np.abs(pixels - centres) <= 22).mean(1)
    assert np.abs(found - covered[:, None] * covered[None, :] / 2).max() < 0.03
    assert float(drawn.weight.min()) == pytest.approx(0.5, abs=0.15)


def test_alpha_seed_and_view_each_change_what_is_shown() -> None:
    examples = split(GREY, 40)

    def shown(alpha: float = 1.0, seed: int = 0, view: int = 1, name: str = "mixup") -> torch.Tensor:
        return show(examples, *every(examples, view), Views.of(3, seed, [{"name": name, "alpha": alpha}]))

    different = [shown(), shown(alpha=0.5), shown(seed=1), shown(view=2), shown(name="cutmix")]
    assert len({digest(one) for one in different}) == len(different)


def test_of_two_mixes_each_view_takes_one_and_as_often_as_its_probability() -> None:
    examples = split(InputSpec("image", (16, 16, 1), "uint8", 0.0, 255.0), 4000)
    index, view = every(examples)

    def kinds(*transforms: dict[str, Any]) -> tuple[int, int]:
        """How many are mixed by mixup (no pixel stays), and how many by cutmix."""
        rows = Examples(examples.schema, examples.keys, torch.zeros_like(examples.inputs), examples.labels)
        rows.inputs[1::2] = 200
        drawn = pairs(rows, index, view, Views.of(2, 0, transforms))
        shown = show(rows, index, view, Views.of(2, 0, transforms))
        unlike = (drawn.partner - index) % 2 == 1
        blended = ((shown != 0) & (shown != 200)).flatten(1).any(1)
        return int(blended.sum()), int((unlike & (drawn.weight < 1) & ~blended).sum())

    mixup, cutmix = {"name": "mixup", "alpha": 8}, {"name": "cutmix", "alpha": 8}
    assert kinds(mixup) == pytest.approx((2000, 0), abs=200)
    assert kinds(mixup, cutmix) == pytest.approx((1000, 1000), abs=150)
    assert kinds({**mixup, "probability": 0.25}, {**cutmix, "probability": 0}) == pytest.approx((250, 0), abs=80)


def test_a_mix_that_the_input_cannot_take_is_refused_before_anything_is_drawn() -> None:
    examples, views = split(TABLE, 4), Views.of(2, 0, [CUTMIX])
    for call in (pairs, show):
        with pytest.raises(DataError, match=r"cutmix cannot be applied to inputs of kind 'features'"):
            call(examples, *every(examples), views)


PINNED = {
    "grey": "e8edcbcb8cf3afd9",
    "colour": "9ce951566fb09536",
    "floats": "897826ae7cb10a89",
    "table": "21a0f0f2561249d5",
}
PINNED_CHANCES = "b3ccf137fb291c99"
