"""Training for the worst subgroup: the paper's rule, what it weighs, and that it does what it is for."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from distill_platform.cache import DenseTarget
from distill_platform.data.examples import Examples
from distill_platform.data.loader import Loader
from distill_platform.data.schema import InputSpec, Schema
from distill_platform.errors import DataError
from distill_platform.models import Output, SavedModel, Standardize
from distill_platform.models.capture import Answer
from distill_platform.objective import Objective, TeacherAnswer
from distill_platform.storage import LocalStorage
from distill_platform.tasks import TASKS
from distill_platform.train import Checkpoints, Trainer, fit
from distill_platform.train.worst_group import WorstGroup, updated
from tests.factory import ONE_VIEW, settings

NAMES = ("no-left", "no-right", "yes-left", "yes-right")
OBJECTIVE = Objective.of(TASKS["classification"], {"task": {"weight": 1.0, "label_smoothing": 0.1}})


def schema(subgroups: tuple[str, ...] = NAMES) -> Schema:
    ranges = (2.0, 2.0, 2.0)
    form = InputSpec("features", (3,), "float32", -1, 1, ("core", "spurious", "noise"), ranges)
    return Schema(form, ("no", "yes"), {}, (0.0,) * 3, (1.0,) * 3, subgroup_names=subgroups)


def spurious(num: int, share_against: float, seed: int) -> Examples:
    """A weak, noisy feature that says the class, and a clear one that says it for all but a few."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (num,), generator=draw)
    against = torch.rand(num, generator=draw) < share_against
    side = torch.where(against, 1 - labels, labels)
    noise = torch.randn(num, 3, generator=draw)
    inputs = torch.stack([2.0 * labels - 1, 4.0 * side - 2, torch.zeros(num)], 1) + noise * torch.tensor(
        [0.7, 0.3, 1.0]
    )
    keys = torch.randint(0, 256, (num, 16), generator=draw, dtype=torch.uint8)
    return Examples(schema(), keys, inputs, labels, subgroups=2 * labels + side)


def trainer(
    train: Examples, worst_group: dict[str, float] | None, metric: str = "val_accuracy", **changed: object
) -> Trainer:
    given = settings(worst_group=worst_group, epochs=12, batch_size=100, weight_decay=0.01, **changed)
    model = SavedModel(
        "mlp", {"hidden": []}, train.schema.input, train.schema.class_names, Standardize.of(train.schema)
    )
    objective = Objective.of(TASKS["classification"], {"task": {"weight": 1.0}})
    return Trainer(model.build(0), objective, Loader(train, ONE_VIEW, given.batch_size, 0), train, given, metric=metric)


def worst_accuracy(run: Trainer, test: Examples) -> float:
    run.network.eval()
    right = run.network(test.inputs)["logits"].values.argmax(-1) == test.labels
    return min(float(right[test.subgroups == group].double().mean()) for group in range(len(NAMES)))


def test_the_worst_subgroup_is_lifted_where_a_clear_feature_misleads() -> None:
    train, test = spurious(1500, 0.04, seed=1), spurious(4000, 0.5, seed=2)
    accuracies = []
    for worst_group in (None, {"step_size": 0.05}):
        run = trainer(train, worst_group)
        while not run.is_finished:
            run.run_epoch()
        accuracies.append(worst_accuracy(run, test))
    assert accuracies[1] > accuracies[0] + 0.2
    weights = run.reports[-1]["subgroup_weights"]
    assert sum(weights.values()) == pytest.approx(1)
    assert min(weights["no-right"], weights["yes-left"]) > max(weights["no-left"], weights["yes-right"])


def naive_weights(q: list[float], losses: dict[int, list[float]], step_size: float) -> list[float]:
    """Algorithm 1, line by line, of a batch's losses by subgroup."""
    grown = [
        weight * math.exp(step_size * sum(losses[group]) / len(losses[group])) if group in losses else weight
        for group, weight in enumerate(q)
    ]
    return [weight / sum(grown) for weight in grown]


@pytest.mark.parametrize("step_size", [0.01, 1.0])
def test_weights_and_the_objective_are_those_of_a_naive_loop(step_size: float) -> None:
    rule = WorstGroup.of({"step_size": step_size}, schema(), OBJECTIVE, torch.device("cpu"))
    assert rule is not None
    expected = [0.25] * 4
    for seed in range(3):
        draw = torch.Generator().manual_seed(seed)
        logits, labels = 2 * torch.randn(12, 2, generator=draw), torch.randint(0, 2, (12,), generator=draw)
        subgroups = torch.randint(0, 3, (12,), generator=draw)  # none of the last
        log_p = logits.double().log_softmax(-1)
        each = [
            -(0.95 * float(row[label]) + 0.05 * float(row[1 - label])) for row, label in zip(log_p, labels, strict=True)
        ]
        losses: dict[int, list[float]] = {}
        for group, loss in zip(subgroups.tolist(), each, strict=True):
            losses.setdefault(group, []).append(loss)
        expected = naive_weights(expected, losses, step_size)
        outputs = {"logits": Output(logits.requires_grad_())}
        weight = rule.weigh(outputs, labels, subgroups)
        assert rule.weights.tolist() == pytest.approx(expected, rel=1e-5)
        wanted = sum(expected[group] * sum(found) / len(found) for group, found in losses.items())
        assert OBJECTIVE(Answer(outputs, {}), labels, weight=weight)["task"].item() == pytest.approx(wanted, rel=1e-5)
        assert not weight.requires_grad


def test_a_loss_of_outputs_is_weighed_alike_and_rows_of_no_subgroup_count_one() -> None:
    draw = torch.Generator().manual_seed(5)
    student, teacher = torch.randn(6, 2, generator=draw), torch.randn(6, 2, generator=draw)
    labels, subgroups = torch.tensor([0, 1, 0, 1, -1, -1]), torch.tensor([0, 0, 0, 2, -1, -1])
    objective = Objective.of(
        TASKS["classification"], {"task": {"weight": 1.0}, "soft_targets": {"weight": 1.0, "temperature": 1.0}}
    )
    rule = WorstGroup.of({"step_size": 0.5}, schema(), objective, torch.device("cpu"))
    assert rule is not None
    weight = rule.weigh({"logits": Output(student)}, labels, subgroups)
    q = rule.weights.tolist()
    assert weight.tolist() == pytest.approx([4 * q[0] / 3] * 3 + [4 * q[2], 1, 1])
    answer, taught = Answer({"logits": Output(student)}, {}), TeacherAnswer(DenseTarget(teacher))
    terms = objective(answer, labels, taught, weight=weight)
    divergences = (teacher.softmax(-1) * (teacher.log_softmax(-1) - student.log_softmax(-1))).sum(-1)
    assert float(terms["soft_targets"]) == pytest.approx(float((weight * divergences).sum() / 6), rel=1e-5)
    entropies = -student.log_softmax(-1)[torch.arange(4), labels[:4]]
    assert float(terms["task"]) == pytest.approx(float((weight[:4] * entropies).sum() / 4), rel=1e-5)


def test_tokens_are_counted_and_padding_is_not() -> None:
    objective = Objective.of(TASKS["language_modelling"], {"task": {"weight": 1.0}})
    rule = WorstGroup.of({"step_size": 1.0}, schema(("a", "b")), objective, torch.device("cpu"))
    assert rule is not None
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 2, 3, 4], [1, -1, -1, -1], [0, 0, -1, -1]])
    weight = rule.weigh({"logits": Output(logits)}, labels, torch.tensor([0, 0, 1]))
    each = -logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
    means = [float(torch.cat([each[0], each[1, :1]]).mean()), float(each[2, :2].mean())]
    assert rule.weights.tolist() == pytest.approx(naive_weights([0.5, 0.5], {0: means[:1], 1: means[1:]}, 1.0))
    loss = objective.task_loss({"logits": Output(logits)}, labels, weight)
    assert float(loss) == pytest.approx(float((rule.weights * torch.tensor(means)).sum()), rel=1e-5)


def test_a_subgroup_whose_weight_went_to_nothing_comes_back() -> None:
    log_weights = torch.zeros(2).log_softmax(0)
    for _ in range(50):
        log_weights = updated(log_weights, torch.tensor([50.0, 0.0]), 1.0)
    assert log_weights.exp().tolist() == [1.0, 0.0]
    for _ in range(60):
        log_weights = updated(log_weights, torch.tensor([0.0, 50.0]), 1.0)
    assert log_weights.exp().tolist() == [0.0, 1.0]


def test_resumed_training_ends_bit_identical(tmp_path: Path) -> None:
    train = spurious(300, 0.1, seed=3)
    whole = trainer(train, {"step_size": 0.1})
    fit(whole, Checkpoints(LocalStorage(tmp_path / "whole")))
    begun, checkpoints = trainer(train, {"step_size": 0.1}), Checkpoints(LocalStorage(tmp_path / "begun"))
    begun.run_epoch()
    checkpoints.save(*begun.state())
    resumed = trainer(train, {"step_size": 0.1})
    fit(resumed, checkpoints)
    assert torch.equal(resumed.worst_group.weights, whole.worst_group.weights)
    assert all(torch.equal(a, b) for a, b in zip(whole._weights().values(), resumed._weights().values(), strict=True))


def test_data_without_subgroups_is_refused() -> None:
    with pytest.raises(DataError, match="the data has none; set data.subgroup"):
        WorstGroup.of({"step_size": 0.1}, schema(()), OBJECTIVE, torch.device("cpu"))


def test_the_kept_epoch_may_be_the_best_for_the_worst_subgroup() -> None:
    train = spurious(500, 0.05, seed=4)
    train.subgroups[:7] = -1
    run = trainer(train, {"step_size": 0.1}, metric="val_worst_group_accuracy")
    while not run.is_finished:
        run.run_epoch()
        run.network.eval()
        right = run.network(train.inputs)["logits"].values.argmax(-1) == train.labels
        by_group = [float(right[train.subgroups == group].double().mean()) for group in range(4)]
        assert run.reports[-1]["val_worst_group_accuracy"] == pytest.approx(min(by_group))
    found = [report["val_worst_group_accuracy"] for report in run.reports]
    assert run.best_score == max(found) > found[0]
    assert not any("/" in name for name in run.reports[0])
