"""Several teachers, the student's own average as teacher, and generations: what of them goes together."""

from __future__ import annotations

from collections.abc import Iterator

from distill_platform.spec.faults import Fault, unknown
from distill_platform.spec.schema import (
    CacheSpec,
    CombineSpec,
    DataSpec,
    GatesSpec,
    LossSpec,
    SweepSpec,
    TeacherSpec,
)
from distill_platform.spec.terms import Sections

FIRST = "teacher"
"""The name of the first teacher."""


def panel_faults(sections: Sections) -> Iterator[Fault]:
    """Combinations that do not fit the teachers, and settings that a student without a teacher's model cannot have."""
    more: dict[str, TeacherSpec] = sections.get("teachers", {})
    if FIRST in more:
        yield Fault(("teachers", FIRST), "is the name of the first teacher, the section `teacher`; wanted another name")
    for name, teacher in more.items():
        if teacher.ema is not None:
            yield Fault(("teachers", name, "ema"), "is for `teacher` alone: a student has one average of its weights")
    if "combine" in sections:
        yield from _combination_faults(sections, [FIRST, *more])
    yield from _generation_faults(sections)
    first: TeacherSpec | None = sections.get("teacher")
    if first is not None and first.ema is not None:
        yield from _faults_without_model(sections)


def _combination_faults(sections: Sections, names: list[str]) -> Iterator[Fault]:
    combine: CombineSpec = sections["combine"]
    if len(names) == 1 and combine != CombineSpec():
        message = f"got by: {combine.by} with one teacher; wanted more under `teachers`, or leave it out"
        yield Fault(("combine",), message)
    if combine.by == "fixed" and set(combine.weights) != set(names):
        got = ", ".join(combine.weights)
        yield Fault(("combine", "weights"), f"got shares of {got}; wanted one of each teacher: {', '.join(names)}")
    data: DataSpec | None = sections.get("data")
    if combine.by == "subgroup":
        for subgroup, name in combine.routes.items():
            if name not in names:
                yield Fault(("combine", "routes", subgroup), unknown("no teacher has this name", names, name))
        if data is not None and data.subgroup is None:
            yield Fault(("combine", "by"), "subgroup needs data.subgroup, the column that says which teacher is asked")


def _generation_faults(sections: Sections) -> Iterator[Fault]:
    from distill_platform.objective.features import FEATURES

    sweep: SweepSpec | None = sections.get("sweep")
    if sweep is not None and sweep.generations > 1:
        for name in set(sections.get("objective", {})) & set(FEATURES):
            message = "names layers of the teacher, and from the second of sweep.generations on a student teaches"
            yield Fault(("objective", name), f"{message}; wanted losses of outputs alone, or generations: 1")


def _faults_without_model(sections: Sections) -> Iterator[Fault]:
    """The student's own average is no artifact: nothing is cached of it, and nothing compared with it."""
    why = "teacher.ema has no model of its own"
    if sections.get("teachers"):
        yield Fault(("teachers",), f"{why}, and is the only teacher; wanted none beside it")
    cache: CacheSpec | None = sections.get("cache")
    if cache is not None and cache != CacheSpec():
        yield Fault(("cache",), f"{why}, so nothing is cached; leave this section out")
    sweep: SweepSpec | None = sections.get("sweep")
    if sweep is not None and sweep.generations > 1:
        yield Fault(("sweep", "generations"), f"{why}; generations begin with a teacher that has one")
    gates: GatesSpec | None = sections.get("gates")
    for position, check in enumerate(gates.checks if gates else ()):
        if FIRST in check.split():
            yield Fault(("gates", "checks", position), f"{why} to compare with; wanted baseline, champion or a number")
    objective: dict[str, LossSpec] = sections.get("objective", {})
    if not set(objective) - {"task"}:
        yield Fault(("objective",), f"no term learns from a teacher, and {why}; wanted a distillation loss")
