"""The weighted combination, term by term."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill_platform.cache import DenseTarget
from distill_platform.data.schema import InputSpec
from distill_platform.errors import ModelError
from distill_platform.models import Output, SavedModel, Standardize
from distill_platform.models.capture import Answer, layer_shapes
from distill_platform.objective import Moment, Objective, TeacherAnswer, check_layers, without_teacher
from distill_platform.objective.features.attention import spatial_attention
from distill_platform.objective.features.rkd import angle_relation, distance_relation
from distill_platform.objective.objective import gradient_shares
from distill_platform.objective.response.soft_targets import soft_targets
from distill_platform.tasks import TASKS

STUDENT = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
TEACHER = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(8) % 4


def test_each_term_is_its_weight_times_its_loss() -> None:
    objective = Objective.of(
        TASKS["classification"], {"task": {"weight": 0.25}, "soft_targets": {"weight": 2.0, "temperature": 3.0}}
    )
    terms = objective(Answer({"logits": Output(STUDENT)}, {}), LABELS, TeacherAnswer(DenseTarget(TEACHER)))
    assert terms["task"] == pytest.approx(0.25 * F.cross_entropy(STUDENT, LABELS).item())
    assert terms["soft_targets"] == pytest.approx(2.0 * soft_targets(STUDENT, TEACHER, 3.0).item())


def test_settings_of_the_task_loss_reach_it() -> None:
    objective = Objective.of(TASKS["classification"], {"task": {"weight": 1.0, "label_smoothing": 0.2}})
    wanted = F.cross_entropy(STUDENT, LABELS, label_smoothing=0.2).item()
    assert objective(Answer({"logits": Output(STUDENT)}, {}), LABELS)["task"].item() == pytest.approx(wanted)


def test_a_baseline_keeps_the_task_settings_and_nothing_of_the_teacher() -> None:
    terms = {"task": {"weight": 0.1, "label_smoothing": 0.2}, "soft_targets": {"weight": 0.9, "temperature": 4.0}}
    objective = Objective.of(TASKS["classification"], without_teacher(terms))
    assert without_teacher(terms) == {"task": {"weight": 1.0, "label_smoothing": 0.2}}
    assert not objective.needs_teacher


def test_gradient_shares_follow_weights_and_sum_to_one() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    shares = gradient_shares({"a": 3 * weight.sum(), "b": weight.sum(), "idle": 0 * weight.sum()}, [weight])
    assert shares == pytest.approx({"a": 0.75, "b": 0.25, "idle": 0.0})


def test_gradient_shares_leave_the_graph_for_the_step() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    terms = {"a": (weight**2).sum()}
    gradient_shares(terms, [weight])
    terms["a"].backward()
    assert weight.grad is not None


def test_gradient_shares_of_what_no_parameter_reaches_are_zero() -> None:
    weight, other = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([1.0]))
    terms = {"a": weight.sum(), "beside": other.sum(), "constant": torch.tensor(2.0)}
    assert gradient_shares(terms, [weight]) == {"a": 1.0, "beside": 0.0, "constant": 0.0}


def test_weights_and_settings_follow_their_schedules() -> None:
    terms: dict[str, dict[str, Any]] = {
        "task": {"weight": {"from": 1.0, "to": 0.0}},
        "soft_targets": {"weight": 1.0, "temperature": {"from": 4.0, "to": 1.0}},
    }
    objective, answer = Objective.of(TASKS["classification"], terms), Answer({"logits": Output(STUDENT)}, {})
    for done in (0.0, 0.25, 1.0):
        found = objective(answer, LABELS, TeacherAnswer(DenseTarget(TEACHER)), moment=Moment(done))
        assert found["task"].item() == pytest.approx((1 - done) * F.cross_entropy(STUDENT, LABELS).item())
        wanted = soft_targets(STUDENT, DenseTarget(TEACHER).logits, 4 - 3 * done).item()
        assert found["soft_targets"].item() == pytest.approx(wanted)


DRAWS = torch.Generator().manual_seed(2)
MAPS = {"a": torch.randn(8, 4, 6, 6, generator=DRAWS), "b": torch.randn(8, 5, 3, 3, generator=DRAWS)}
LAYERS = {"a": MAPS["a"].half().flip(0), "b": torch.randn(8, 7, 3, 3, generator=DRAWS).half()}


def features(**terms: dict[str, Any]) -> Objective:
    objective = Objective.of(TASKS["classification"], terms)
    shapes = [{name: tuple(values.shape[1:]) for name, values in layers.items()} for layers in (MAPS, LAYERS)]
    return objective.fitted(shapes[0], shapes[1], num_examples=20, seed=0)


def answered(objective: Objective) -> dict[str, Tensor]:
    answer = Answer({"logits": Output(STUDENT)}, MAPS)
    teacher = TeacherAnswer(DenseTarget(TEACHER), LAYERS)
    return objective(answer, LABELS, teacher, moment=Moment(0.0, 3, torch.arange(8)))


def test_a_feature_loss_adds_up_over_its_pairs() -> None:
    values = [
        answered(features(attention={"weight": 0.5, "layers": layers}))["attention"].item()
        for layers in ({"a": "a"}, {"b": "b"}, {"a": "a", "b": "b"})
    ]
    assert values[2] == pytest.approx(values[0] + values[1])
    wanted = 0.5 * spatial_attention(MAPS["a"], LAYERS["a"].float()).item()
    assert values[0] == pytest.approx(wanted)


def test_a_loss_of_pooled_layers_gets_them_pooled_though_they_are_kept_whole() -> None:
    objective = features(rkd={"weight": 1.0, "layers": {"b": "b"}}, hint={"weight": 1.0, "layers": {"b": "b"}})
    assert objective.teacher_layers == objective.student_layers == {"b": "whole"}
    student, teacher = MAPS["b"].mean((2, 3)), LAYERS["b"].float().mean((2, 3))
    wanted = distance_relation(student, teacher) + 2 * angle_relation(student, teacher)
    assert answered(objective)["rkd"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_padding_is_left_out_where_layers_of_tokens_are_pooled() -> None:
    mask = torch.tensor([[True] * 3 + [False]] * 4)
    tokens, theirs = torch.randn(4, 4, 6), torch.randn(4, 6, 6)
    term = {"rkd": {"weight": 1.0, "layers": {"x": "x"}}}
    objective = Objective.of(TASKS["classification"], term).fitted({"x": (4, 6)}, {"x": (6, 6)}, 4, 0)
    answer = Answer({"logits": Output(STUDENT)}, {"x": tokens}, mask)
    student, teacher = tokens[:, :3].mean(1), theirs[:, :3].mean(1)
    wanted = distance_relation(student, teacher) + 2 * angle_relation(student, teacher)
    found = objective(answer, LABELS[:4], TeacherAnswer(DenseTarget(TEACHER), {"x": theirs}))
    assert found["rkd"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_modules_are_drawn_from_the_seed_and_leave_the_callers_random_state() -> None:
    state = torch.get_rng_state()
    first, second = (features(hint={"weight": 1.0, "layers": {"a": "a"}}) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert [name for name, _ in first.modules.named_parameters()] == [
        "hint.0.regressor.weight",
        "hint.0.regressor.bias",
    ]
    for own, other in zip(first.modules.parameters(), second.modules.parameters(), strict=True):
        assert torch.equal(own, other)


def test_layers_that_cannot_be_compared_are_refused_by_term_and_pair() -> None:
    with pytest.raises(ModelError, match=r"objective.hidden_states.layers, b: a: cannot compare \[4, 6, 6\] with"):
        features(hidden_states={"weight": 1.0, "layers": {"b": "a"}})


def test_a_baseline_has_no_feature_losses() -> None:
    terms = {"task": {"weight": 0.5}, "hint": {"weight": 1.0, "layers": {"a": "a"}}}
    assert without_teacher(terms) == {"task": {"weight": 1.0}}


def test_models_are_checked_against_an_objective_without_being_run() -> None:
    input = InputSpec("image", (64, 64, 3), "uint8", 0, 255)
    plain = Standardize((0.0,) * 3, (1.0,) * 3)
    teacher = SavedModel("resnet", {"depth": 20, "width": 64}, input, ("x", "y"), plain)
    student = SavedModel("resnet", {"depth": 8, "width": 8}, input, ("x", "y"), plain)

    def check(layers: dict[str, str]) -> None:
        term = {"crd": {"weight": 1.0, "layers": {"head": "head"}}, "hint": {"weight": 1.0, "layers": layers}}
        objective = Objective.of(TASKS["classification"], term)
        theirs = layer_shapes(teacher, objective.teacher_layers, "objective", "the teacher")
        check_layers(objective, student, theirs, num_examples=1 << 40)

    check({"stages.*": "stages.*"})
    with pytest.raises(ModelError, match="objective: no layer of the student is called 'stage.1'; did you mean"):
        check({"stages.1": "stage.1"})
    with pytest.raises(ModelError, match="objective: no layer of the teacher is called 'stages.3'; did you mean"):
        check({"stages.3": "stages.2"})
