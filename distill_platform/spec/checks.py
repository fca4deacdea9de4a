"""What a section's own types cannot say: names are looked up, and sections are held against each other.

The tables of names live beside what they name, in modules that load torch; so they are imported here, when a spec is
loaded, and by nothing that `distill --help` touches. A fault in one section keeps none in another from being found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from distill_platform.errors import InputError
from distill_platform.spec.faults import Fault, Path, got, unknown
from distill_platform.spec.schema import (
    CacheSpec,
    DataSpec,
    GatesSpec,
    LossSpec,
    ModelSpec,
    SweepSpec,
    TeacherSpec,
    TrainSpec,
)

if TYPE_CHECKING:
    from distill_platform.cache import Codec, Demand
    from distill_platform.tasks.setting import Setting

Sections = Mapping[str, Any]


def section_faults(sections: Sections) -> list[Fault]:
    """Faults of all sections that are there: unknown names, wrong arguments, and what does not go together."""
    return [fault for check in _CHECKS for fault in check(sections)]


def student_faults(sections: Sections) -> Iterator[Fault]:
    """An architecture that does not exist, or arguments that it does not take."""
    if "student" in sections:
        yield from _model_faults(("student",), sections["student"])


def objective_faults(sections: Sections) -> Iterator[Fault]:
    """Losses and settings that do not exist; settings that are no numbers; an objective that weighs nothing."""
    if "objective" not in sections or "task" not in sections:
        return
    terms: dict[str, LossSpec] = sections["objective"]
    known = loss_settings(sections["task"])
    for name, term in terms.items():
        path = ("objective", name)
        if name not in known:
            yield Fault(path, unknown("no loss has this name", known, name))
            continue
        for setting, value in term.settings.items():
            if setting not in known[name]:
                yield Fault((*path, setting), unknown("unknown key", ["weight", *known[name]], setting))
            elif not known[name][setting].takes(value):
                yield Fault((*path, setting), f"got {got(value)}, wanted {known[name][setting].wanted}")
    if not any(term.weight > 0 for term in terms.values()):
        yield Fault(("objective",), "every weight is 0: there is nothing to train on; wanted one weight > 0")


def loss_settings(task: str) -> dict[str, dict[str, Setting]]:
    """Loss name -> its settings; `task` is the task's own loss."""
    from distill_platform.objective import LOSSES
    from distill_platform.tasks import TASKS

    own = TASKS[task].settings if task in TASKS else {}
    return {"task": dict(own), **{name: dict(loss.settings) for name, loss in LOSSES.items()}}


def _task_faults(sections: Sections) -> Iterator[Fault]:
    from distill_platform.tasks import TASKS

    if "task" in sections and sections["task"] not in TASKS:
        yield Fault(("task",), unknown("no task has this name", TASKS, sections["task"]))


def _data_faults(sections: Sections) -> Iterator[Fault]:
    from distill_platform.data.views import Views

    data: DataSpec | None = sections.get("data")
    for position, transform in enumerate(data.views.augment if data else ()):
        path = ("data", "views", "augment", position)
        yield from _refusal(path, partial(Views.of, 2, 0, [transform.model_dump()]))


def _teacher_faults(sections: Sections) -> Iterator[Fault]:
    teacher: TeacherSpec | None = sections.get("teacher")
    if teacher is not None and teacher.model is not None:
        yield from _model_faults(("teacher", "model"), teacher.model)


def _cache_faults(sections: Sections) -> Iterator[Fault]:
    from distill_platform.cache import CODECS
    from distill_platform.cache.choice import AUTO

    cache: CacheSpec | None = sections.get("cache")
    if cache is None:
        return
    if cache.codec != AUTO and cache.codec not in CODECS:
        yield Fault(("cache", "codec"), unknown("no codec has this name", [AUTO, *CODECS], cache.codec))
        return
    if cache.codec != AUTO:
        yield from _codec_faults(cache, CODECS[cache.codec], sections)


def _codec_faults(cache: CacheSpec, codec: Codec, sections: Sections) -> Iterator[Fault]:
    from distill_platform.cache import CODECS
    from distill_platform.cache.choice import Demand, carries

    if cache.dtype not in codec.dtypes:
        yield Fault(("cache", "dtype"), f"got {cache.dtype}; codec {cache.codec} stores {', '.join(codec.dtypes)}")
    if cache.keep != "auto" and not codec.keep:
        keeping = ", ".join(name for name, other in CODECS.items() if other.keep)
        yield Fault(("cache", "keep"), f"codec {cache.codec} keeps every class; leave it out, or take one of {keeping}")
    for path, demand in distillation_demands(sections):
        typed = Demand(demand.accepts)
        fitting = ", ".join(name for name, other in CODECS.items() if carries(other, demand)) or "none"
        if not carries(codec, typed):
            yield Fault(
                path[:2],
                f'cannot be computed from what cache.codec "{cache.codec}" keeps; codecs that keep enough: {fitting}',
            )
        elif not carries(codec, demand):
            lowest, highest = codec.temperatures
            (temperature,) = demand.temperatures
            carried = f"{lowest:g} alone" if lowest == highest else f"{lowest:g} to {highest:g}"
            yield Fault(
                path,
                f'temperature {temperature:g} is outside what cache.codec "{cache.codec}" tells: it carries {carried}; '
                f"codecs that carry it: {fitting}",
            )


def distillation_demands(sections: Sections) -> Iterator[tuple[Path, Demand]]:
    """What distillation asks of a cache, one temperature at a time, and where the spec says so.

    Temperatures are those of the objective, the ends and choices of a sweep over them, and 1, which validation takes.
    """
    from distill_platform.cache import Demand
    from distill_platform.objective import LOSSES, VALIDATION

    sweep: SweepSpec | None = sections.get("sweep")
    names = [name for name in sections.get("objective", ()) if name in LOSSES]
    for name in names:
        accepts, path = LOSSES[name].accepts, ("objective", name)
        if "temperature" not in LOSSES[name].settings:
            yield path, Demand(accepts)
            continue
        own = sections["objective"][name].settings.get("temperature", LOSSES[name].settings["temperature"].default)
        field = f"objective.{name}.temperature"
        swept = sweep.space[field].values if sweep and field in sweep.space else ()
        for place, value in [((*path, "temperature"), own), *((("sweep", "space", field), value) for value in swept)]:
            if LOSSES[name].settings["temperature"].takes(value):
                yield place, Demand(accepts, (float(value),))
    if names:
        loss, temperature = VALIDATION
        yield ("sweep", "metric"), Demand(LOSSES[loss].accepts, (temperature,))


def _gate_faults(sections: Sections) -> Iterator[Fault]:
    from distill_platform.evaluate.gate import parse_gate

    gates: GatesSpec | None = sections.get("gates")
    for position, text in enumerate(gates.checks if gates else ()):
        yield from _refusal(("gates", "checks", position), partial(parse_gate, text))


def _sweep_faults(sections: Sections) -> Iterator[Fault]:
    sweep: SweepSpec | None = sections.get("sweep")
    train: TrainSpec | None = sections.get("train")
    if sweep and train and sweep.trials > 1 and sweep.scheduler == "asha" and sweep.grace_epochs > train.epochs:
        yield Fault(
            ("sweep", "grace_epochs"),
            f"got {sweep.grace_epochs}, wanted at most train.epochs, {train.epochs}; or set scheduler: none",
        )


def _model_faults(path: Path, model: ModelSpec) -> Iterator[Fault]:
    from distill_platform.models.builders import check_arguments, find_builder

    nameless = list(_refusal((*path, "name"), partial(find_builder, model.name)))
    yield from nameless
    for argument in () if nameless else model.args:
        yield from _refusal((*path, argument), partial(check_arguments, model.name, {argument: None}))


def _refusal(path: Path, check: Callable[[], object]) -> Iterator[Fault]:
    """What the part of the platform that a value is for has against it."""
    try:
        check()
    except InputError as error:
        yield Fault(path, str(error))


_CHECKS: tuple[Callable[[Sections], Iterator[Fault]], ...] = (
    _task_faults,
    _data_faults,
    _teacher_faults,
    _cache_faults,
    student_faults,
    objective_faults,
    _sweep_faults,
    _gate_faults,
)
