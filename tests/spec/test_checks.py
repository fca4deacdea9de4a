"""Names are looked up when a spec is loaded, not when a step comes to need them."""

from __future__ import annotations

import math

import pytest

from distill_platform.cache import CODECS, DenseTarget
from distill_platform.spec.checks import distillation_demands

KEEPING = ", ".join(name for name, codec in CODECS.items() if codec.keep)


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
            "allowed here: standardize, temperature, weight",
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
    others = ", ".join(name for name in CODECS if name != "sampled")
    assert line == (
        '--set  objective.soft_targets.temperature: temperature 4 is outside what cache.codec "sampled" tells: '
        f"it carries temperatures of 1 alone; codecs that carry it: {others}"
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
            f"cache.keep: codec dense keeps every class; leave it out, or take one of {KEEPING}",
        ),
        ("cache={codec: topk, keep: 0}", "cache.keep: got 0 (an integer), wanted"),
    ],
)
def test_cache_settings_that_a_codec_does_not_have(faults, small, override, message):
    (line,) = faults(small, override)
    assert message in line


ALL_LOGITS = ", ".join(name for name, codec in CODECS.items() if codec.target is DenseTarget)


@pytest.mark.parametrize(
    ("term", "codec", "path"),
    [
        ("dkd: {weight: 1}", "topk", "dkd"),
        ("dist: {weight: 1}", "topk", "dist"),
        ("logit_mse: {weight: 1}", "sampled", "logit_mse"),
        ("soft_targets: {weight: 1, temperature: 1, standardize: true}", "topk", "soft_targets.standardize"),
        ("reverse_kl: {weight: 1, temperature: 1, standardize: true}", "topk", "reverse_kl.standardize"),
    ],
)
def test_a_loss_that_the_codec_cannot_carry(faults, small, term, codec, path):
    (line,) = faults(small, f"objective={{{term}}}", f"cache.codec={codec}")
    assert line.startswith(
        f'--set  objective.{path}: cannot be computed from what cache.codec "{codec}" keeps; codecs that keep enough: '
    )
    assert line.split("enough: ")[1] in (ALL_LOGITS, ", ".join(unbounded(DenseTarget)))


def unbounded(kept):
    return [name for name, codec in CODECS.items() if codec.target is kept and codec.temperatures[1] == math.inf]


def test_samples_carry_only_forward_kl(faults, small_with, small):
    at_one = "{weight: 1, temperature: 1}"
    assert small_with(f"objective={{soft_targets: {at_one}}}", "cache.codec=sampled")
    for name in ("reverse_kl", "jensen_shannon", "skewed_kl", "skewed_reverse_kl"):
        (line,) = faults(small, f"objective={{{name}: {at_one}}}", "cache.codec=sampled")
        assert line.startswith(f"--set  objective.{name}: cannot be computed from what")
        assert "topk" in line


@pytest.mark.parametrize("term", ["logit_mse: {weight: 1}", "soft_targets: {weight: 1, standardize: true}"])
def test_logits_compared_as_they_are_need_a_codec_that_is_right_without_bound(faults, small_with, small, term):
    bounded = [name for name, codec in CODECS.items() if codec.target is DenseTarget and codec.temperatures[1] < 100]
    assert bounded, "a codec to refuse"
    for name in bounded:
        (line,) = faults(small, f"objective={{{term}}}", f"cache.codec={name}")
        assert f'comparing logits as they are is outside what cache.codec "{name}" tells' in line
        assert line.endswith(f"codecs that carry it: {', '.join(unbounded(DenseTarget))}")
    assert small_with(f"objective={{{term}}}", "cache.codec=int4")


def test_a_swept_switch_asks_for_what_it_may_become(faults, small_with, small):
    objective = "objective={soft_targets: {weight: 1, temperature: 1}}"
    swept = "sweep={trials: 2, space: {objective.soft_targets.standardize: {choice: [true, false]}}}"
    (line,) = faults(small, objective, swept, "cache.codec=topk")
    assert line.startswith("--set  sweep.space.objective.soft_targets.standardize: cannot be computed from what")
    assert small_with(objective, swept, "cache.codec=dense")


@pytest.mark.parametrize("mixing", ["mixup, alpha: 1", "cutmix, alpha: 1"])
def test_labels_of_mixed_examples(faults, small_with, small, mixing):
    views = f"data.views={{num: 2, augment: [{{name: {mixing}}}]}}"
    (line,) = faults(small, "objective={dkd: {weight: 1}}", views)
    name = mixing.split(",")[0]
    assert line.startswith(
        f"--set  objective.dkd: splits the classes by an example's label, and {name} in data.views makes examples "
        "of two; take it out of the views, or one of soft_targets, reverse_kl, "
    )
    assert small_with("objective={dist: {weight: 1}}", views)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ("{weight: 1, temperature: {from: 8, to: 0}}", "temperature.to: got 0 (an integer), wanted a number > 0"),
        ("{weight: {from: -1, to: 1}}", "weight.from: got -1.0 (a number), wanted a number >= 0"),
        ("{weight: 1, temperature: {from: 8}}", "temperature.to: missing; wanted a number"),
        (
            "{weight: 1, temperature: {from: 8, to: 4, untill: 0.5}}",
            'temperature.untill: unknown key; did you mean "until"? allowed here: from, shape, to, until',
        ),
        (
            "{weight: 1, temperature: {from: 8, to: 4, until: 0}}",
            "temperature.until: got 0 (an integer), wanted a number > 0 and <= 1",
        ),
        (
            "{weight: 1, temperature: {from: 8, to: 4, shape: step}}",
            'temperature.shape: got "step" (a string), wanted one of linear, cosine',
        ),
        ("{weight: 1, standardize: {from: 0, to: 1}}", "standardize: got a mapping, wanted true or false"),
        ("{weight: 1, layers: {a: b}}", "layers: unknown key; allowed here: standardize, temperature, weight"),
    ],
)
def test_schedules_and_settings_of_a_term(faults, small, term, message):
    (line,) = faults(small, f"objective={{soft_targets: {term}}}")
    assert line == f"--set  objective.soft_targets.{message}"


def test_a_schedule_of_a_weight_that_is_none_names_what_is_missing(faults, small):
    lines = faults(small, "objective.task.weight={from: 1}")
    assert "--set  objective.task.weight.to: missing; wanted a number" in lines


def test_a_weight_that_falls_to_0_or_rises_from_it_weighs_something(faults, small_with, small):
    spec = small_with("objective={task: {weight: {from: 0, to: 1, until: 0.5}}, soft_targets: {weight: 0}}")
    assert spec.to_json()["objective"]["task"]["weight"] == {"from": 0.0, "to": 1.0, "until": 0.5, "shape": "linear"}
    (line,) = faults(small, "objective={task: {weight: {from: 0, to: 0}}}")
    assert "every weight is 0" in line


def test_a_codec_carries_both_ends_of_a_schedule(faults, small_with, small):
    cooling = "objective={soft_targets: {weight: 1, temperature: {from: 4, to: 0.5}}}"
    (line,) = faults(small, cooling, "cache.codec=topk")
    assert line.startswith(
        '--set  objective.soft_targets.temperature: temperature 0.5 is outside what cache.codec "topk"'
    )
    assert small_with("objective={soft_targets: {weight: 1, temperature: {from: 4, to: 1}}}", "cache.codec=topk")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{weight: 1}", ": layers is missing; wanted a non-empty mapping, the teacher's layer: the student's layer; "),
        ("{weight: 1, layers: {}}", ".layers: got an empty mapping, wanted a non-empty mapping, the teacher's layer: "),
        ("{weight: 1, layers: [a]}", '.layers: got ["a"] (a list), wanted a non-empty mapping, the teacher\'s layer: '),
        (
            "{weight: 1, layers: {a: 3}}",
            ".layers.a: got 3 (an integer), wanted the name of a layer of the student",
        ),
        ("{weight: 1, layer: {a: b}, layers: {a: b}}", '.layer: unknown key; did you mean "layers"? allowed here: '),
    ],
)
def test_layers_of_a_loss_that_compares_them(faults, small, given, message):
    (line,) = faults(small, f"objective={{hint: {given}}}")
    assert line.startswith(f"--set  objective.hint{message}")


def test_a_loss_of_layers_asks_nothing_of_the_codec_but_what_validation_does(small_with):
    spec = small_with("objective={hint: {weight: 1, layers: {body.0: body.0}}}")
    (demand,) = [demand for _, demand in distillation_demands({"objective": spec.objective, "sweep": spec.sweep})]
    assert demand.temperatures == (1.0,)


def test_a_gate_on_what_the_task_is_not_measured_by(faults, small):
    (line,) = faults(small, "gates.checks=[perplexity <= 1.05 * teacher]")
    assert line.startswith("--set  gates.checks.0: gate `perplexity <= 1.05 * teacher`, character 1: perplexity is not")
    assert "metrics are accuracy, macro_precision" in line
    (line,) = faults(small, "task=language_modelling", "gates.checks=[macro_f1 >= 0.5]")
    assert "metrics are perplexity, bits_per_byte" in line


def test_gates_of_an_unknown_task_are_read_as_some_task_has_them(faults, small):
    gates = "gates.checks=[perplexity <= 9, perplexty <= 9]"
    lines = faults(small, "task=languge_modelling", gates)
    assert {line.split(":")[0] for line in lines} == {"--set  gates.checks.1", "--set  task"}
