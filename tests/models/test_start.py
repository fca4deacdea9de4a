"""A student's first weights from a saved model and from its teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from distill_platform.errors import ModelError
from distill_platform.models import Network, load_network, save_model
from distill_platform.models.axes import channel_axes
from distill_platform.models.start import (
    activation_importance,
    check_start,
    from_channels,
    from_layers,
    from_teacher,
    from_weights,
    weight_importance,
)
from tests.models.kinds import model_for, raw_batch


def network(name: str, kind: str, seed: int = 0, **args: Any) -> Network:
    built = model_for(name, kind, **args).build(seed).eval()
    with torch.no_grad():  # norms that do something
        for name, buffer in built.body.named_buffers():
            if "running" in name:
                buffer.copy_(torch.rand(buffer.shape) + 0.5)
    return built


def logits(of: Network, kind: str) -> Tensor:
    with torch.inference_mode():
        return of(raw_batch(kind))["logits"].values


def silence(of: Network, keep: dict[str, list[int]]) -> None:
    """Set every weight of all members of these groups but some to zero."""
    state = of.body.state_dict()
    with torch.no_grad():
        for name, axes in channel_axes(of.body).items():
            for position, axis in enumerate(axes):
                start = 0
                for part in axis or ():
                    for member in range(part.num):
                        if part.group in keep and member not in keep[part.group] and "running" not in name:
                            entries = torch.arange(part.unit) + start + member * part.unit
                            state[name].index_fill_(position, entries, 0.0)
                    start += part.num * part.unit


def test_a_model_starts_from_the_weights_of_one_of_its_architecture(tmp_path: object) -> None:
    model = model_for("cnn", "image", channels=[4])
    save_model(tmp_path, model, model.build(3))  # type: ignore[arg-type]
    _, given = load_network(tmp_path)  # type: ignore[arg-type]
    student = model.build(4)
    student.load_state_dict(from_weights(student, given))
    assert torch.equal(logits(student.eval(), "image"), logits(given, "image"))
    other = model_for("cnn", "image", channels=[5]).build()
    with pytest.raises(
        ModelError, match=r"the given weights do not fit the student: body\.0\.weight is \[4, 1, 3, 3\]"
    ):
        from_weights(other, given)


@pytest.mark.parametrize(("keep", "taken"), [(None, [0, 2]), ([1, 3], [1, 3])])
def test_every_other_layer_is_kept_or_those_that_are_named(keep: list[int] | None, taken: list[int]) -> None:
    teacher = network("transformer", "text", depth=4)
    student = network("transformer", "text", seed=1, depth=2)
    student.load_state_dict(from_layers(student, teacher, keep))
    reduced = torch.nn.ModuleList(teacher.body.blocks[layer] for layer in taken)
    teacher.body.blocks = reduced
    assert torch.equal(logits(student, "text"), logits(teacher, "text"))


def test_residual_networks_lose_blocks_of_every_stage() -> None:
    teacher, student = network("resnet", "image", depth=20), network("resnet", "image", depth=14)
    state = from_layers(student, teacher)
    given = teacher.state_dict()
    assert torch.equal(state["body.stages.1.1.body.0.weight"], given["body.stages.1.1.body.0.weight"])
    student.load_state_dict(state)


@pytest.mark.parametrize(
    ("given", "depth", "keep", "message"),
    [
        ({"depth": 2}, 2, None, "as many layers, so there is none to drop"),
        ({"depth": 2}, 4, None, "the student has 4 layers, the teacher 2"),
        ({"depth": 4}, 2, [3, 1], r"got layers \[3, 1\], wanted 2 of 0 to 3, rising"),
        ({"depth": 4, "width": 32}, 2, None, r"the teacher's layers do not fit .* is \[256, 32\], wanted \[256, 16\]"),
    ],
)
def test_layers_that_do_not_fit_are_refused(given: dict[str, int], depth: int, keep: Any, message: str) -> None:
    teacher = network("transformer", "text", **given)
    with pytest.raises(ModelError, match=message):
        from_layers(network("transformer", "text", depth=depth), teacher, keep)


NARROWED = [
    ("mlp", "features", {"hidden": [12, 8]}, {"hidden": [5, 4]}, {"1": [0, 3, 4, 7, 11], "3": [1, 2, 5, 6]}),
    ("cnn", "image", {"channels": [6, 8]}, {"channels": [3, 4]}, {"0": [0, 2, 5], "4": [1, 3, 4, 7]}),
    (
        "resnet",
        "image",
        {"depth": 8, "width": 4},
        {"depth": 8, "width": 2},
        {
            "stem": [1, 3],
            "stages.1.widen": [0, 2],
            "stages.2.widen": [1, 4, 5, 7],
            "stages.0.0.inner": [0, 3],
            "stages.1.0.inner": [0, 1, 5, 6],
            "stages.2.0.inner": list(range(8)),
        },
    ),
    (
        "transformer",
        "text",
        {"width": 16, "heads": 2, "mlp_factor": 4.0},
        {"width": 16, "heads": 2, "mlp_factor": 0.5},
        {"blocks.0.neurons": [3, 8, 9, 21, 30, 40, 41, 63], "blocks.1.neurons": list(range(8))},
    ),
    (
        "vit",
        "image",
        {"width": 16, "heads": 2, "mlp_factor": 2.0},
        {"width": 16, "heads": 2, "mlp_factor": 0.25},
        {"blocks.0.neurons": [3, 8, 9, 21], "blocks.1.neurons": [0, 1, 30, 31]},
    ),
]


@pytest.mark.parametrize(("name", "kind", "wide", "narrow", "keep"), NARROWED)
def test_leaving_out_channels_that_do_nothing_changes_nothing(
    name: str, kind: str, wide: dict[str, Any], narrow: dict[str, Any], keep: dict[str, list[int]]
) -> None:
    teacher, student = network(name, kind, **wide), network(name, kind, seed=1, **narrow)
    silence(teacher, keep)
    student.load_state_dict(from_channels(student, teacher))
    assert torch.allclose(logits(student, kind), logits(teacher, kind), atol=1e-5)
    assert logits(teacher, kind).std() > 1e-3


def test_heads_and_width_are_kept_whole_and_by_their_importance() -> None:
    teacher = network("transformer", "tokens", width=16, heads=4, depth=4)
    student = network("transformer", "tokens", seed=1, width=8, heads=2, depth=2)
    importance = {group: torch.arange(len(each)).double() for group, each in weight_importance(teacher).items()}
    importance["blocks.2.heads"] = torch.tensor([9.0, 1.0, 8.0, 2.0])
    state, given = from_channels(student, teacher, importance=importance), teacher.body.state_dict()
    assert torch.equal(state["body.embedding.weight"], given["embedding.weight"][:, 8:])
    rows = [0, 1, 2, 3, 8, 9, 10, 11]
    query = given["blocks.2.attention.in_proj_weight"][:16]
    assert torch.equal(state["body.blocks.1.attention.in_proj_weight"][:8], query[rows][:, 8:])
    assert torch.equal(
        state["body.blocks.1.attention.out_proj.weight"], given["blocks.2.attention.out_proj.weight"][8:][:, rows]
    )
    student.load_state_dict(state)


def test_weight_importance_is_the_norm_of_all_that_belongs_to_a_channel() -> None:
    body = network("mlp", "features", hidden=[4]).requires_grad_(False).body
    first, last = body[1], body[3]
    wanted = [
        float((first.weight[row].square().sum() + first.bias[row] ** 2 + last.weight[:, row].square().sum()).sqrt())
        for row in range(4)
    ]
    found = weight_importance(network("mlp", "features", hidden=[4]))
    assert found["1"].tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("name", "kind"), [("mlp", "features"), ("cnn", "image"), ("resnet", "image"), ("vit", "image")]
)
def test_activation_importance_names_every_group(name: str, kind: str) -> None:
    built = network(name, kind)
    found = activation_importance(built, [raw_batch(kind)])
    assert {group: each.shape for group, each in found.items()} == {
        group: each.shape for group, each in weight_importance(built).items()
    }


def test_activation_importance_is_summed_over_what_counts() -> None:
    built = network("transformer", "text", depth=1)
    batches = [raw_batch("text", seed=0), raw_batch("text", seed=1)]
    found = activation_importance(built, batches)
    wanted = torch.zeros(2, dtype=torch.float64)
    seen: list[Tensor] = []
    built.body.blocks[0].attention.out_proj.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for batch in batches:
        logits_of = built(batch)
        assert logits_of
        values = seen.pop().double().unflatten(-1, (2, 8))
        for row in range(5):
            for at in range(int((batch[row] != 0).sum())):
                wanted += values[row, at].norm(dim=-1)
    assert torch.allclose(found["blocks.0.heads"], wanted)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (("mlp", {"hidden": [9]}), ("mlp", {"hidden": [4]}), "1: the student has 9, the teacher 4; wanted at most"),
        (
            ("vit", {"width": 8, "heads": 2}),
            ("vit", {"width": 16, "heads": 2}),
            "set the student's heads to its width / 8",
        ),
        (("vit", {}), ("resnet", {}), "the student is a VisionTransformer, its teacher a ResNet"),
    ],
)
def test_students_that_cannot_be_made_of_a_teachers_channels_are_refused(
    student: tuple[str, dict[str, Any]], teacher: tuple[str, dict[str, Any]], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        from_channels(*(network(name, "image", **args) for name, args in (student, teacher)))


def test_bodies_without_a_table_of_channels_are_refused() -> None:
    built = network("ngrams", "text")
    with pytest.raises(ModelError, match="cannot be narrowed; wanted mlp, cnn, resnet, vit or transformer"):
        from_channels(built, built)


def test_what_is_taken_of_a_teacher_follows_from_what_the_student_lacks() -> None:
    teacher = network("transformer", "text", depth=4)
    asked: list[Network] = []

    def importance(of: Network) -> dict[str, Tensor]:
        asked.append(of)
        return weight_importance(of)

    alike = from_teacher(network("transformer", "text", 1, depth=4), teacher, importance=importance)
    assert all(torch.equal(value, alike[name]) for name, value in teacher.state_dict().items())
    shallow = from_teacher(network("transformer", "text", 1, depth=2), teacher, [1, 3], importance)
    assert torch.equal(shallow["body.blocks.0.mlp.0.weight"], teacher.body.blocks[1].mlp[0].weight)
    assert asked == []
    thin = network("transformer", "text", 1, depth=2, mlp_factor=2.0)
    thin.load_state_dict(from_teacher(thin, teacher, importance=importance))
    assert asked == [teacher]
    expected = from_channels(thin, teacher)
    assert all(torch.equal(value, expected[name]) for name, value in thin.state_dict().items())


@pytest.mark.parametrize(
    ("how", "args", "keep", "message"),
    [
        ("weights", {}, None, None),
        ("weights", {"depth": 2}, None, "the given weights do not fit the student"),
        ("teacher", {"depth": 2, "width": 8, "heads": 1}, None, None),
        ("teacher", {"depth": 2}, [0, 1, 3], r"got layers \[0, 1, 3\], wanted 2 of 0 to 3, rising"),
        ("teacher", {}, [0, 1], "as many layers, so there is none to drop"),
        ("teacher", {"depth": 5}, None, "the student has 5 layers, the teacher 4"),
        ("teacher", {"width": 8}, None, "heads are kept whole, so set the student's heads to its width / 8"),
    ],
)
def test_a_start_is_checked_without_weights(
    how: str, args: dict[str, Any], keep: list[int] | None, message: str | None
) -> None:
    given = model_for("transformer", "text", depth=4)
    student = model_for("transformer", "text", **{"depth": 4, **args})
    if message is None:
        check_start(student, given, how, keep)
        return
    with pytest.raises(ModelError, match=message):
        check_start(student, given, how, keep)


def test_a_model_of_other_classes_is_no_start() -> None:
    given = model_for("mlp", "features")
    with pytest.raises(ModelError, match=r"has 2 classes \(no, yes …\), the student 2 \(yes, no …\)"):
        check_start(replace(given, class_names=("yes", "no")), given, "weights")


def test_a_body_that_cannot_be_narrowed_is_refused_before_it_has_weights() -> None:
    with pytest.raises(ModelError, match="cannot be narrowed|channels"):
        check_start(model_for("conv1d", "audio", channels=[4, 4]), model_for("conv1d", "audio"), "teacher")
