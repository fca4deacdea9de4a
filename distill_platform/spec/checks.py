"""What a section's own types cannot say: names are looked up, and sections are held against each other.

The tables of names live beside what they name, in modules that load torch; so they are imported here, when a spec is
loaded, and by nothing that `distill --help` touches. A fault in one section keeps none in another from being found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING

from distill_platform.errors import InputError
from distill_platform.spec.faults import Fault, Path, unknown
from distill_platform.spec.panel import panel_faults
from distill_platform.spec.schema import (
    CacheSpec,
    CombineSpec,
    DataSpec,
    GatesSpec,
    LossSpec,
    ModelSpec,
    SweepSpec,
    TeacherSpec,
    TrainSpec,
)
from distill_platform.spec.students import calibration_faults, start_faults, worst_group_faults
from distill_platform.spec.terms import Sections, mixing_faults, objective_faults, term_demands

if TYPE_CHECKING:
    from distill_platform.cache import Codec, Demand


def section_faults(sections: Sections) -> list[Fault]:
    """Faults of all sections that are there: unknown names, wrong arguments, and what does not go together."""
    return [fault for check in _CHECKS for fault in check(sections)]


def student_faults(sections: Sections) -> Iterator[Fault]:
    """An architecture that does not exist, or arguments that it does not take."""
    if "student" in sections:
        yield from _model_faults(("student",), sections["student"])


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
    for name, each in sections.get("teachers", {}).items():
        if each.model is not None:
            yield from _model_faults(("teachers", name, "model"), each.model)


def _cache_faults(sections: Sections) -> Iterator[Fault]:
    from distill_platform.cache import CODECS
    from distill_platform.cache.choice import AUTO

    cache: CacheSpec | None = sections.get("cache")
    if cache is None:
        return
    if cache.codec != AUTO and cache.codec not in CODECS:
        yield Fault(("cache", "codec"), unknown("no codec has this name", [AUTO, *CODECS], cache.codec))
        return
    if cache.live and cache != CacheSpec(live=True, precision=cache.precision):
        yield Fault(("cache", "live"), "true stores nothing, so what is stored cannot be set; leave the other keys out")
    elif cache.codec != AUTO:
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
        fitting = ", ".join(name for name, other in CODECS.items() if carries(other, demand)) or "none"
        if not demand.temperatures and not carries(codec, demand):
            yield Fault(
                path,
                f'cannot be computed from what cache.codec "{cache.codec}" keeps; codecs that keep enough: {fitting}',
            )
        elif carries(codec, Demand(demand.accepts)) and not carries(codec, demand):
            lowest, highest = codec.temperatures
            (temperature,) = demand.temperatures
            what = f"temperature {temperature:g}" if isfinite(temperature) else "comparing logits as they are"
            carried = f"{lowest:g} alone" if lowest == highest else f"{lowest:g} to {highest:g}"
            yield Fault(
                path,
                f'{what} is outside what cache.codec "{cache.codec}" tells: it carries temperatures of {carried}; '
                f"codecs that carry it: {fitting}",
            )


def distillation_demands(sections: Sections) -> Iterator[tuple[Path, Demand]]:
    """What distillation asks of a cache, and where the spec says so: a type of target, or one temperature.

    Settings are those of the objective, the ends and choices of a sweep over them, and of a schedule both its ends;
    and temperature 1, which validation takes. Losses that compare layers ask nothing of a codec.
    """
    from distill_platform.cache import Demand
    from distill_platform.objective import LOSSES, VALIDATION
    from distill_platform.objective.combination import READS_LABELS
    from distill_platform.objective.response import RESPONSE

    sweep: SweepSpec | None = sections.get("sweep")
    objective: Mapping[str, LossSpec] = sections.get("objective", {})
    for name, term in objective.items():
        if name in RESPONSE:
            yield from term_demands(name, term.settings, sweep.space if sweep else {})
    if any(name in LOSSES for name in objective):
        validated, temperature = VALIDATION
        yield ("sweep", "metric"), Demand(RESPONSE[validated].accepts(), (temperature,))
        combine: CombineSpec | None = sections.get("combine")
        if combine is not None and combine.by in ("learned", "confidence"):
            yield ("combine", "by"), Demand(READS_LABELS)


def _gate_faults(sections: Sections) -> Iterator[Fault]:
    from distill_platform.evaluate.gate import parse_gate
    from distill_platform.evaluate.measures import MEASURES, measures_of
    from distill_platform.tasks import TASKS

    gates: GatesSpec | None = sections.get("gates")
    task = sections.get("task")
    possible = [measures_of(TASKS[task])] if task in TASKS else list(MEASURES.values())
    for position, text in enumerate(gates.checks if gates else ()):
        path = ("gates", "checks", position)
        refusals = [list(_refusal(path, partial(parse_gate, text, measures))) for measures in possible]
        if all(refusals):
            yield from refusals[0]


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
    panel_faults,
    _cache_faults,
    student_faults,
    objective_faults,
    mixing_faults,
    start_faults,
    worst_group_faults,
    calibration_faults,
    _sweep_faults,
    _gate_faults,
)
