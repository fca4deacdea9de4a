"""How students start, learn from subgroups, and are put right after training: what of it goes together."""

from __future__ import annotations

from collections.abc import Iterator

from distill_platform.spec.faults import Fault, Path
from distill_platform.spec.schema import (
    CompressSpec,
    DataSpec,
    StartSpec,
    SweepSpec,
    TeacherSpec,
    TrainSpec,
)
from distill_platform.spec.terms import Sections, mixing_transforms


def start_faults(sections: Sections) -> Iterator[Fault]:
    """A start from a teacher that has no weights of its own."""
    start: StartSpec | None = sections.get("start")
    teacher: TeacherSpec | None = sections.get("teacher")
    if start is not None and start.from_ == "teacher" and teacher is not None and teacher.ema is not None:
        yield Fault(
            ("start", "from"),
            "got teacher, and teacher.ema has no weights before the student; wanted random or weights",
        )


def worst_group_faults(sections: Sections) -> Iterator[Fault]:
    """What goes by the worst subgroup, of data without subgroups; training for it on examples that are mixed of two."""
    if "data" not in sections:
        return
    data: DataSpec = sections["data"]
    mixing, sweep = mixing_transforms(data), sections.get("sweep")
    if sweep is not None and sweep.metric == "val_worst_group_accuracy" and data.subgroup is None:
        yield Fault(
            ("sweep", "metric"), "val_worst_group_accuracy needs data.subgroup, the column of subgroups; set it"
        )
    for path in _worst_groups(sections):
        if data.subgroup is None:
            yield Fault(path, "needs data.subgroup, the column that says what subgroup an example is of; set it")
        elif mixing:
            yield Fault(
                path,
                f"weighs an example by its subgroup, and {', '.join(mixing)} in data.views makes examples of two; take "
                "it out of the views, or leave worst_group out",
            )


def calibration_faults(sections: Sections) -> Iterator[Fault]:
    """A bias of classes where labels are of tokens: tens of thousands of classes, most of which no split shows."""
    from distill_platform.tasks import TASKS

    compress: CompressSpec | None = sections.get("compress")
    task = TASKS.get(sections.get("task", ""))
    if compress is not None and compress.class_bias != "none" and task is not None and task.per_token:
        yield Fault(("compress", "class_bias"), f"is for classes, and task {task.name} has tokens; wanted none")


def _worst_groups(sections: Sections) -> Iterator[Path]:
    """Where a spec asks for it."""
    trained: dict[Path, TrainSpec | None] = {("train",): sections.get("train")}
    teachers: dict[str, TeacherSpec] = sections.get("teachers", {})
    trained |= {("teachers", name, "train"): each.train for name, each in teachers.items()}
    if (first := sections.get("teacher")) is not None:
        trained[("teacher", "train")] = first.train
    for path, train in trained.items():
        if train is not None and train.worst_group is not None:
            yield (*path, "worst_group")
    sweep: SweepSpec | None = sections.get("sweep")
    swept = sweep.space.get("train.worst_group") if sweep is not None else None
    if swept is not None and any(value is not None for value in swept.values):
        yield ("sweep", "space", "train.worst_group")
