"""Every "auto" becomes a value, once."""

from __future__ import annotations

from distill_platform.spec import Machine, load_spec_json, resolve, this_machine

LAPTOP = Machine(num_cpus=4, num_gpus=0, gpu_precision="float32")
CLUSTER = Machine(num_cpus=64, num_gpus=4, gpu_precision="bfloat16")
SPACE = "sweep={trials: 12, space: {train.lr: {loguniform: [0.001, 0.1]}}}"


def test_nothing_but_the_cache_stays_auto(small_with):
    assert '"auto"' not in resolve(small_with(), this_machine()).model_dump_json(exclude={"cache"})


def test_a_resolved_spec_is_a_spec_and_resolves_to_itself(small_with):
    resolved = resolve(small_with(), LAPTOP)
    assert load_spec_json(resolved.to_json()) == resolved
    assert resolve(resolved, CLUSTER) == resolved


def test_on_a_laptop(small_with):
    spec = resolve(small_with("seed=7", SPACE), LAPTOP)
    assert (spec.train.seed, spec.teacher.train.seed) == (7, 7)
    assert (spec.train.precision, spec.teacher.train.precision) == ("float32", "float32")
    assert spec.registry.model == "small"
    assert (spec.resources.cache_workers, spec.resources.concurrent_trials) == (4, 4)


def test_on_gpus(small_with):
    spec = resolve(small_with(SPACE, "resources.gpus_per_trial=0.5", "sweep.in_flight=12"), CLUSTER)
    assert (spec.train.precision, spec.teacher.train.precision) == ("bfloat16", "bfloat16")
    assert (spec.resources.cache_workers, spec.resources.concurrent_trials) == (4, 8)


def test_a_teacher_answers_on_the_gpus_wherever_there_are_some(small_with):
    assert resolve(small_with(), LAPTOP).cache.precision == "float32"
    assert resolve(small_with(), LAPTOP).resources.gpus_per_teacher == 0
    spec = resolve(small_with(), CLUSTER)
    assert (spec.cache.precision, spec.resources.gpus_per_teacher, spec.resources.cache_workers) == ("bfloat16", 1, 4)
    sharded = resolve(small_with("resources.gpus_per_teacher=2"), CLUSTER)
    assert (sharded.cache.precision, sharded.resources.cache_workers) == ("bfloat16", 2)
    on_cpus = resolve(small_with("resources.gpus_per_teacher=0", "cache.precision=bfloat16"), CLUSTER)
    assert (on_cpus.cache.precision, on_cpus.resources.cache_workers) == ("bfloat16", 64)


def test_students_that_train_on_cpus_keep_full_precision_beside_gpus(small_with):
    spec = resolve(small_with(SPACE, "resources.cpus_per_trial=2", "sweep.in_flight=12"), CLUSTER)
    assert (spec.train.precision, spec.teacher.train.precision) == ("float32", "bfloat16")
    assert spec.resources.concurrent_trials == 12


def test_what_was_given_is_kept(small_with):
    given = ("train.seed=3", "train.precision=float16", "registry.model=other", "resources.cache_workers=2")
    spec = resolve(small_with(*given), LAPTOP)
    assert (spec.train.seed, spec.train.precision, spec.registry.model) == (3, "float16", "other")
    assert spec.resources.cache_workers == 2


def test_losses_get_the_settings_they_were_not_given(small_with):
    spec = resolve(small_with("objective={task: {weight: 1}, soft_targets: {weight: 2}}"), LAPTOP)
    assert spec.objective["soft_targets"].settings == {"temperature": 4.0, "standardize": False}
    assert spec.objective["task"].settings == {"label_smoothing": 0.0}
    assert spec.objective["soft_targets"].weight == 2


def test_schedules_get_what_they_were_not_given_and_layers_stay(small_with):
    layers = {"stages.2": "stages.1"}
    given = "{weight: {from: 1, to: 0}, temperature: {from: 8, to: 1, until: 0.5}}"
    spec = resolve(small_with(f"objective={{soft_targets: {given}, hint: {{weight: 1, layers: {layers}}}}}"), LAPTOP)
    soft, hint = (spec.to_json()["objective"][name] for name in ("soft_targets", "hint"))
    assert soft["weight"] == {"from": 1.0, "to": 0.0, "until": 1.0, "shape": "linear"}
    assert soft["temperature"] == {"from": 8, "to": 1, "until": 0.5, "shape": "linear"}
    assert hint["layers"] == layers
