"""Every feature loss on two transformers: layers by name, attention weights, and padding that never counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distill_platform.cache import DenseTarget
from distill_platform.data.schema import InputSpec
from distill_platform.models import Ids, SavedModel
from distill_platform.models.capture import capture, layer_shapes
from distill_platform.objective import Moment, Objective, TeacherAnswer, check_layers
from distill_platform.tasks import TASKS

LENGTHS = (5, 9, 12, 3, 20, 7)
TERMS: dict[str, dict[str, Any]] = {
    "hidden_states": {"weight": 1.0, "match": "cosine", "layers": {"blocks.1": "blocks.0", "blocks.3": "blocks.1"}},
    "attention": {"weight": 1.0, "layers": {"blocks.3.attention:attention": "blocks.1.attention:attention"}},
    "hint": {"weight": 1.0, "layers": {"blocks.3": "blocks.1"}},
    "rkd": {"weight": 1.0, "layers": {"blocks.3": "blocks.1"}},
    "crd": {"weight": 1.0, "layers": {"blocks.3": "blocks.1"}, "feature_dim": 8, "num_negatives": 16},
}


def model(width: int, depth: int, heads: int, length: int) -> SavedModel:
    args = {"width": width, "depth": depth, "heads": heads}
    return SavedModel("transformer", args, InputSpec("text", (length,), "uint8", 0, 255), ("a", "b", "c"), Ids(256))


def values(length: int) -> tuple[dict[str, float], float]:
    """Of each term, for texts in so many bytes; and the norm of the student's gradient."""
    torch.manual_seed(0)
    text = torch.randint(1, 255, (len(LENGTHS), 32)).to(torch.uint8)
    for row, end in enumerate(LENGTHS):
        text[row, end:] = 0
    objective = Objective.of(TASKS["classification"], TERMS)
    theirs = layer_shapes(model(24, 4, 4, length), objective.teacher_layers)
    check_layers(objective, model(16, 2, 2, length), theirs, num_examples=50)
    networks = [model(16, 2, 2, length).build(0), model(24, 4, 4, length).build(1)]
    wanted = [objective.student_layers, objective.teacher_layers]
    student, teacher = (
        capture(network, layers).answer(text[:, :length]) for network, layers in zip(networks, wanted, strict=True)
    )
    shapes = [{name: tuple(layer.shape[1:]) for name, layer in answer.layers.items()} for answer in (student, teacher)]
    terms = objective.fitted(*shapes, num_examples=50, seed=0)(
        student,
        torch.zeros(len(text), dtype=torch.int64),
        TeacherAnswer(
            DenseTarget(teacher.outputs["logits"].values.detach()),
            {name: layer.detach().half() for name, layer in teacher.layers.items()},
        ),
        moment=Moment(0.0, 0, torch.arange(len(text))),
    )
    torch.stack(list(terms.values())).sum().backward()
    gradients = [weight.grad.norm() for weight in networks[0].parameters() if weight.grad is not None]
    return {name: term.item() for name, term in terms.items()}, float(torch.stack(gradients).norm())


def test_values_and_gradients_do_not_depend_on_how_much_padding_follows() -> None:
    short, long = values(20), values(32)
    assert set(short[0]) == set(TERMS)
    assert min(short[0].values()) > 0
    assert long[0] == pytest.approx(short[0], rel=1e-3)
    assert long[1] == pytest.approx(short[1], rel=1e-3)
