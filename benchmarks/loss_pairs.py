"""The same tensors through the losses that torchdistill has too: what both say, and why where they differ.

`peers/torchdistill_worker.py` computes theirs under the same names.

Axes: B examples, C classes, D channels, H and W of a map, M rows of a bank, N negatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill_platform.cache import DenseTarget
from distill_platform.models import Output
from distill_platform.objective import LOSSES
from distill_platform.objective.features import FEATURES, Fit, Pair
from distill_platform.objective.features.crd import critic_loss
from distill_platform.objective.features.hint import Hint
from distill_platform.objective.response import RESPONSE
from distill_platform.tasks import TASKS

B, C, D, SIDE, M, N = 16, 100, 24, 7, 256, 64
AGREES = 1e-5
"""Relative difference of two fp32 computations of one definition, which sum in another order."""

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Compared:
    """A loss that both have.

    ours:    its value for the tensors. factor: what theirs is multiplied by before it is compared.
    theirs:  class and settings. differs: what is defined otherwise there; empty where nothing is.
    follows: which of both is the paper's definition.
    """

    loss: str
    ours: Callable[[Tensors], Tensor]
    theirs: str
    factor: float = 1.0
    differs: str = ""
    follows: str = "both"


def made_tensors(seed: int = 0) -> dict[str, Tensor]:
    """Random logits, labels, maps, vectors and a bank, the same for both sides."""
    rng = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng)

    bank = F.normalize(draw(2, M, D), dim=-1)
    index = torch.randperm(M, generator=rng)
    embeddings = F.normalize(draw(2, B, D), dim=-1)
    bank[:, index[:B]] = embeddings
    return {
        "student_logits": 3 * draw(B, C),
        "teacher_logits": 3 * draw(B, C),
        "labels": torch.randint(C, (B,), generator=rng),
        "student_maps": draw(B, D // 2, SIDE, SIDE),
        "teacher_maps": draw(B, D, SIDE, SIDE),
        "hint_weight": draw(D, D // 2, 1, 1) / D,
        "hint_bias": draw(D),
        "student_vectors": draw(B, D),
        "teacher_vectors": draw(B, D),
        "embeddings": embeddings,
        "bank": bank,
        "index": index[:B],
        "negatives": index[B : B + N],
        "partitions": torch.tensor([1.5 * M, 2.5 * M]),
    }


def compare(tensors: Tensors, theirs: Mapping[str, float] | None) -> dict[str, dict[str, Any]]:
    """Of each loss what both say, the difference relative to ours, and what is known of the definitions.

    theirs: name -> value; None where no peer was asked.
    """
    return {name: _compared(one, tensors, None if theirs is None else theirs[name]) for name, one in COMPARED.items()}


def without_counterpart() -> list[str]:
    """Losses of the platform that torchdistill has no module for."""
    return sorted(LOSSES.keys() - {one.loss for one in COMPARED.values()})


def _compared(one: Compared, tensors: Tensors, theirs: float | None) -> dict[str, Any]:
    ours = float(one.ours(tensors))
    known = {"theirs_is": one.theirs, "factor": one.factor, "differs": one.differs, "follows_the_paper": one.follows}
    if theirs is None:
        return {"ours": ours, "theirs": None, "relative_difference": None, "agrees": None, **known}
    difference = abs(ours - one.factor * theirs) / abs(ours)
    return {
        "ours": ours,
        "theirs": theirs,
        "relative_difference": difference,
        "agrees": difference <= AGREES,
        **known,
    }


def _response(name: str, **settings: Any) -> Callable[[Tensors], Tensor]:
    def value(tensors: Tensors) -> Tensor:
        loss = RESPONSE[name]
        defaults = {key: setting.default for key, setting in loss.settings.items()}
        target, output = DenseTarget(tensors["teacher_logits"]), Output(tensors["student_logits"])
        return loss(output, target, tensors["labels"], **{**defaults, **settings})

    return value


def _feature(name: str, kind: str, **settings: Any) -> Callable[[Tensors], Tensor]:
    def value(tensors: Tensors) -> Tensor:
        student, teacher = tensors[f"student_{kind}"], tensors[f"teacher_{kind}"]
        given = {key: setting.default for key, setting in FEATURES[name].settings.items()} | settings
        module = FEATURES[name].build(Fit(tuple(student.shape[1:]), tuple(teacher.shape[1:])), given)
        if isinstance(module, Hint):
            module.regressor.load_state_dict({"weight": tensors["hint_weight"], "bias": tensors["hint_bias"]})
        with torch.no_grad():
            return module(Pair(student, teacher), given)  # type: ignore[no-any-return]

    return value


def _with_task(tensors: Tensors) -> Tensor:
    task = TASKS["classification"].loss({"logits": Output(tensors["student_logits"])}, tensors["labels"])
    return 0.5 * task + 0.5 * _response("soft_targets", temperature=4.0)(tensors)


def _standardized_as_theirs(tensors: Tensors) -> Tensor:
    temperature = 2.0 * math.sqrt(C / (C - 1))
    return _response("soft_targets", temperature=temperature, standardize=True)(tensors) / temperature**2


def _contrast(tensors: Tensors) -> Tensor:
    """The critic's loss in both directions, of negatives that the batch shares."""
    own = tensors["embeddings"]
    negative = own @ tensors["bank"][:, tensors["negatives"]].flip(0).mT
    positive, counted = own.prod(0).sum(-1), torch.ones(B, N, dtype=torch.bool)
    sides = [
        critic_loss(positive, negative[side], counted, M, 0.07, float(tensors["partitions"][side].log()))
        for side in (0, 1)
    ]
    return torch.stack(sides).sum()


NO_T_SQUARED = "without a label part (alpha 0) its value is not multiplied by T^2"

COMPARED: dict[str, Compared] = {
    "soft_targets, T = 1": Compared(
        "soft_targets", _response("soft_targets", temperature=1.0), "KDLoss(temperature=1, alpha=0)"
    ),
    "soft_targets, T = 4": Compared(
        "soft_targets",
        _response("soft_targets", temperature=4.0),
        "KDLoss(temperature=4, alpha=0)",
        factor=16.0,
        differs=NO_T_SQUARED,
        follows="ours: section 2 of the paper multiplies by T^2",
    ),
    "task and soft_targets, T = 4": Compared("soft_targets", _with_task, "KDLoss(temperature=4, alpha=0.5)"),
    "soft_targets standardized, T = 2": Compared(
        "soft_targets",
        _response("soft_targets", temperature=2.0, standardize=True),
        "LogitStdKDLoss(temperature=2, alpha=0)",
        factor=4.0,
        differs="divides by the standard deviation over C - 1, as the authors' code does, ours by that over C; "
        + NO_T_SQUARED,
        follows="ours: the z-score of algorithm 1 is over the C classes",
    ),
    "soft_targets standardized, T = 2 sqrt(C / (C - 1)) for ours": Compared(
        "soft_targets",
        _standardized_as_theirs,
        "LogitStdKDLoss(temperature=2, alpha=0)",
        differs="as above; the two standard deviations are one factor of the temperature. Ours is divided by its T^2",
        follows="ours",
    ),
    "dist, T = 1": Compared("dist", _response("dist", temperature=1.0), "DISTLoss(beta=1, gamma=1, tau=1)"),
    "dist, T = 4, beta = 2": Compared(
        "dist", _response("dist", temperature=4.0, beta=2.0), "DISTLoss(beta=2, gamma=1, tau=4)"
    ),
    "logit_mse": Compared(
        "logit_mse",
        _response("logit_mse"),
        "MSELoss()",
        follows="neither: the paper sums over the classes, both take the mean",
    ),
    "hint": Compared(
        "hint",
        _feature("hint", "maps"),
        "MSELoss() behind the same 1x1 convolution",
        factor=0.5,
        differs="no 1/2. Its own regressor ConvReg adds batch norm and ReLU, as CRD's authors do",
        follows="ours, for the 1/2 of equation 3; the paper sums the squares, both take the mean",
    ),
    "attention, as the authors' code": Compared(
        "attention",
        _feature("attention", "maps"),
        "ATLoss(mode='code')",
        factor=SIDE * SIDE / 2,
        differs="mean over the pixels of a map instead of half the sum",
        follows="neither: equation 2 has half the distance itself, both square it as the authors' code does",
    ),
    "attention, as the paper": Compared(
        "attention",
        _feature("attention", "maps"),
        "ATLoss(mode='paper')",
        factor=0.5,
        differs="the distance is not squared; no factor makes them one",
        follows="theirs, but for the 1/2 of equation 2",
    ),
    "rkd, distances": Compared(
        "rkd",
        _feature("rkd", "vectors", distance=1.0, angle=0.0),
        "RKDLoss(dist_factor=1, angle_factor=0, reduction='mean')",
        factor=B / (B - 1),
        differs="the mean counts an example's distance to itself, 0 in both, too",
        follows="ours: tuples are of different examples; the paper sums, both take the mean",
    ),
    "rkd, angles": Compared(
        "rkd",
        _feature("rkd", "vectors", distance=0.0, angle=1.0),
        "RKDLoss(dist_factor=0, angle_factor=1, reduction='mean')",
        factor=B**2 / ((B - 1) * (B - 2)),
        differs="the mean counts triplets that hold an example twice, alike in both, too",
        follows="ours: tuples are of different examples; the paper sums, both take the mean",
    ),
    "crd": Compared(
        "crd",
        _contrast,
        "CRDLoss(temperature=0.07)",
        differs="agrees for given negatives and constants, where the bank's rows of a batch are what it says now. "
        "In training theirs has the bank's older row as one half of an example's own pair, draws negatives for each "
        "example and from other classes (a wrapper of its data set does), counts the positives into the constants, and "
        "adds 1e-7 to denominators. Ours pairs what both say now, and draws once for the batch",
        follows="ours in the pair, which equation 17 has of one input; both in the constants of the authors' code",
    ),
    "hidden_states, mse": Compared("hidden_states", _feature("hidden_states", "vectors", match="mse"), "MSELoss()"),
}
