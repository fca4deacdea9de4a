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
    assert '--set  cache.codec: no codec has this name; did you mean "dense"? allowed here: auto, dense, head, ' in text
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
        (
            "objective.task.label_smoothing=high",
            'label_smoothing: got "high" (a string), wanted a number >= 0 and <= 1',
        ),
        ("objective.task.label_smoothing=true", "label_smoothing: got true (a boolean), wanted a number >= 0 and <= 1"),
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


def test_a_temperature_that_the_codec_cannot_carry(faults, small):
    objective = "objective={task: {weight: 1}, soft_targets: {weight: 1, temperature: 4}}"
    (line,) = faults(small, objective, "cache.codec=sampled")
    assert line == (
        '--set  objective.soft_targets.temperature: temperature 4 is outside what cache.codec "sampled" tells: '
        "it carries 1 alone; codecs that carry it: dense, planes, int4, onebit, topk, head"
    )


def test_a_default_temperature_counts(faults, small):
    (line,) = faults(small, "cache.codec=sampled")
    assert "temperature 4 is outside" in line


@pytest.mark.parametrize(
    ("space", "refused"),
    [("uniform: [1, 2]", ["2"]), ("choice: [1, 3, 1.5]", ["3", "1.5"]), ("loguniform: [0.5, 1]", ["0.5"])],
)
def test_a_sweep_over_temperatures_that_the_codec_cannot_carry(faults, small, space, refused):
    lines = faults(
        small,
        "objective={soft_targets: {weight: 1, temperature: 1}}",
        f"sweep={{trials: 2, space: {{objective.soft_targets.temperature: {{{space}}}}}}}",
        "cache.codec=sampled",
    )
    assert [line.split(" is outside ")[0] for line in lines] == [
        f"--set  sweep.space.objective.soft_targets.temperature: temperature {value}" for value in refused
    ]


def test_temperatures_that_a_codec_carries_are_taken(small_with):
    at_one = "objective={soft_targets: {weight: 1, temperature: 1}}"
    assert small_with(at_one, "cache.codec=sampled").cache.codec == "sampled"
    swept = "sweep={trials: 2, space: {objective.soft_targets.temperature: {uniform: [1, 8]}}}"
    assert small_with(swept, "cache.codec=topk").cache.codec == "topk"
    assert small_with(swept).cache.codec == "auto"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cache={codec: topk, dtype: float32}", "cache.dtype: got float32; codec topk stores float16"),
        (
            "cache={codec: dense, keep: 5}",
            "cache.keep: codec dense keeps every class; leave it out, or take one of onebit, topk, sampled",
        ),
        ("cache={codec: topk, keep: 0}", "cache.keep: got 0 (an integer), wanted"),
    ],
)
def test_cache_settings_that_a_codec_does_not_have(faults, small, override, message):
    (line,) = faults(small, override)
    assert message in line
