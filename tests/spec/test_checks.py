"""Names are looked up when a spec is loaded, not when a step comes to need them."""

from __future__ import annotations

import pytest


def test_every_unknown_name_is_reported_with_the_closest_one(faults, small):
    lines = faults(
        small,
        "task=clasification",
        "teacher.model.name=mpl",
        "student.hiden=[4]",
        "cache.codec=dens",
        "objective={task: {weight: 1}, soft_target: {weight: 1}}",
        "data.views={num: 2, augment: [{name: shft, pixels: 1}]}",
        "gates.checks=[acuracy >= 0.9]",
    )
    assert len(lines) == 7
    text = "\n".join(lines)
    assert '--set  task: no task has this name; did you mean "classification"? allowed here: classification' in text
    assert "--set  teacher.model.name: no model is called 'mpl'; did you mean 'mlp'?" in text
    assert "--set  student.hiden: model 'mlp' has no argument 'hiden'; did you mean 'hidden'?" in text
    assert '--set  cache.codec: no codec has this name; did you mean "dense"? allowed here: dense' in text
    assert '--set  objective.soft_target: no loss has this name; did you mean "soft_targets"? allowed here: ' in text
    assert "--set  data.views.augment.0: " in text
    assert "did you mean 'shift'?" in text
    assert "--set  gates.checks.0: " in text
    assert "did you mean 'accuracy'?" in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "objective.soft_targets.temprature=2",
            'objective.soft_targets.temprature: unknown key; did you mean "temperature"? '
            "allowed here: temperature, weight",
        ),
        ("objective.soft_targets.temperature=0", "temperature: got 0 (an integer), wanted a number > 0"),
        ("objective.task.label_smoothing=high", 'label_smoothing: got "high" (a string), wanted a number'),
        ("objective.task.label_smoothing=true", "label_smoothing: got true (a boolean), wanted a number"),
        (
            "objective.task.weight=0",
            "every weight is 0: there is nothing to train on; wanted one weight > 0",
        ),
    ],
)
def test_an_objectives_settings(faults, small, override, message):
    objective = "objective={task: {weight: 1}, soft_targets: {weight: 0, temperature: 4}}"
    (line,) = faults(small, objective, override)
    assert line.endswith(message)


def test_a_model_of_the_users_own_is_imported(small_with):
    name = "import:distill_platform.models.mlp:mlp"
    assert small_with(f"student.name={name}").student.name == name


def test_a_model_that_cannot_be_imported(faults, small):
    (line,) = faults(small, "student.name=import:no_such_package.models:tiny")
    assert line.startswith("--set  student.name: import:no_such_package.models:tiny: No module named 'no_such_package'")


def test_a_grace_longer_than_the_training(faults, small):
    sweep = "sweep={trials: 2, grace_epochs: 5, space: {train.lr: {uniform: [0.1, 1]}}}"
    (line,) = faults(small, sweep, "train.epochs=4")
    assert line == "--set  sweep.grace_epochs: got 5, wanted at most train.epochs, 4; or set scheduler: none"
