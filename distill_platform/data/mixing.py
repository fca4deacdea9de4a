"""What a view shows in the end: an example, mixed with a second one where the views ask for it.

The cache's writer and the students' loader both call `show`, so a teacher's cached output belongs to the very values a
student meets. Whom an example is mixed with, and how much of it is left, follows from its key, the view, the seed of
the views and the split alone: not from batch, epoch, trial or worker. View 0 is never mixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill_platform.data.blending import UNMIXED, Patches, blend, own_share
from distill_platform.data.draws import draw, happens, integers, streams, substream
from distill_platform.data.examples import Examples
from distill_platform.data.transforms import TRANSFORMS
from distill_platform.data.views import VALUES_AT_ONCE, Views, augment

ROWS_AT_ONCE = 8192
"""Pairs of a whole split are drawn in parts whose arrays stay in a core's cache: several times faster than at once."""


@dataclass(frozen=True)
class Pairs:
    """`partner` `[B]` int64: the other example, a row of the split; `weight` `[B]` float32: the example's own share.

    A label counts `weight`, the partner's 1 - weight. Where nothing is mixed in, the partner is the example itself and
    the weight exactly 1, and nowhere else.
    """

    partner: Tensor
    weight: Tensor


@dataclass(frozen=True)
class MixedLabels:
    """The second label of each example of a batch: its partner's `[B]`; and `weight` `[B]`, the share of its own.

    The loss of a mixed example is that share of its own label's, and the rest of its partner's: Zhang et al. 2018,
    equation 2, for a loss that is linear in the label, as cross-entropy is.
    """

    partner: Tensor
    weight: Tensor

    def to(self, device: torch.device) -> MixedLabels:
        """The same on a device."""
        return MixedLabels(self.partner.to(device), self.weight.to(device))


def pairs(examples: Examples, index: Tensor, view: Tensor, views: Views) -> Pairs:
    """Whom each example `index` `[B]` int64 is mixed with in its `view` `[B]` int64; no input is read.

    The partner is any other example of the split, each as likely. So it depends on which examples the split holds,
    and in which order: both enter the digest of the data, and so the key of whatever is made from them.

    Raises DataError if the transforms do not fit the kind of input.
    """
    parts = zip(index.split(ROWS_AT_ONCE), view.split(ROWS_AT_ONCE), strict=True)
    drawn = [_drawn(examples, *part, views)[0] for part in parts]
    return Pairs(torch.cat([part.partner for part in drawn]), torch.cat([part.weight for part in drawn]))


def show(examples: Examples, index: Tensor, view: Tensor, views: Views) -> Tensor:
    """Raw inputs `[B, *shape]` of examples `index` `[B]` as their `view` `[B]` shows them, mixing included.

    Both examples of a pair are augmented as that view says, each by its own key, and then mixed; the dtype stays.
    Bit-identical on every machine.

    Raises DataError if the transforms do not fit the kind of input.
    """
    return show_with_pairs(examples, index, view, views)[0]


def show_with_pairs(examples: Examples, index: Tensor, view: Tensor, views: Views) -> tuple[Tensor, Pairs]:
    """What `show` and `pairs` give, for the work of one."""
    spec = examples.schema.input
    shown = _augmented(examples, index, view, views)
    if not views.mixes:
        return shown, Pairs(index, torch.ones(len(index)))
    drawn, patches = _drawn(examples, index, view, views)
    mixed = np.flatnonzero((drawn.partner != index).numpy())
    size = max(1, VALUES_AT_ONCE // math.prod(spec.shape))
    for start in range(0, len(mixed), size):
        rows = mixed[start : start + size]
        others = _augmented(examples, drawn.partner[rows], view[rows], views).numpy()
        shown.numpy()[rows] = blend(shown.numpy()[rows], others, patches[rows], spec)
    return shown, drawn


def _augmented(examples: Examples, index: Tensor, view: Tensor, views: Views) -> Tensor:
    inputs, keys = examples.inputs.index_select(0, index), examples.keys.index_select(0, index)
    return augment(inputs, keys, view, views, examples.schema.input)


def _drawn(examples: Examples, index: Tensor, view: Tensor, views: Views) -> tuple[Pairs, Patches]:
    """Pairs, and patches [B, 5] of those that are mixed.

    Of several transforms that mix, one is drawn for each (example, view), each as likely.
    """
    spec = examples.schema.input
    views.check(spec)
    drawn = Pairs(index.clone(), torch.ones(len(index)))
    partner, weight, patches = drawn.partner.numpy(), drawn.weight.numpy(), np.tile(UNMIXED, (len(index), 1))
    rows = view.numpy().nonzero()[0]
    if not views.mixes or len(examples) == 1:
        return drawn, patches
    keys = examples.keys.index_select(0, index[rows]).numpy()
    states = streams(keys, view.numpy()[rows], views.seed)
    choices = substream(states, len(views.transforms))
    mixes = [
        (substream(states, number), mix, dict(arguments))
        for number, (name, arguments) in enumerate(views.transforms)
        if (mix := TRANSFORMS[name].mix) is not None
    ]
    turn = integers(draw(choices, 0), 0, len(mixes) - 1)
    for which, (stream, mix, arguments) in enumerate(mixes):
        chosen = (turn == which) & happens(draw(choices, 1), arguments["probability"])
        patches[rows[chosen]] = mix(stream[chosen], arguments, spec)
    others = integers(draw(choices, 2), 0, len(examples) - 2)
    others += others >= partner[rows]
    weight[:] = own_share(patches, spec)
    partner[rows] = np.where(weight[rows] < 1, others, partner[rows])
    return drawn, patches
