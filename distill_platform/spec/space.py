"""The search space against the spec: which fields a sweep may set, and whether it may set them to those values.

The test of a value is the spec itself: every end of a range and every choice is put in place of what the spec says
there, and has to make a spec without faults. So a field's bounds hold for a sweep without being written twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from distill_platform.spec.checks import student_faults
from distill_platform.spec.faults import Fault, keys_at, unknown
from distill_platform.spec.schema import Dimension, Spec
from distill_platform.spec.sections import read_section
from distill_platform.spec.terms import Sections, loss_settings, objective_faults

SWEPT = ("student", "objective", "train")
REBUILT = ("data", "teacher", "teachers", "combine", "cache")


def space_faults(sections: Sections) -> list[Fault]:
    """What is wrong with `sweep.space`, as far as the sections it points into are right themselves."""
    space: Mapping[str, Dimension] = sections["sweep"].space if "sweep" in sections else {}
    return [
        Fault(("sweep", "space", field), message)
        for field, dimension in space.items()
        for message in _messages(field, dimension, sections)
    ]


def replace(section: Any, keys: list[str], value: Any) -> Any:
    """A section's plain values with the one under `keys` set to `value`; nothing is changed in place."""
    if not keys:
        return value
    below = section.get(keys[0], {}) if isinstance(section, dict) else {}
    return {**section, keys[0]: replace(below, keys[1:], value)}


def _messages(field: str, dimension: Dimension, sections: Sections) -> Iterator[str]:
    root, *keys = field.split(".")
    if refusal := _refusal(field, root, keys, sections):
        yield refusal
    elif root in sections:
        plain = _plain(sections[root])
        standing = _faults_with(root, plain, sections)
        for value in _extremes(dimension):
            for fault in _faults_with(root, replace(plain, keys, value), sections):
                if fault not in standing:
                    yield f"may become {json.dumps(value)}, but: {fault.message}"


def _refusal(field: str, root: str, keys: list[str], sections: Sections) -> str | None:
    if root in REBUILT:
        return f"would rebuild the {root} for every trial, and the teacher runs once; swept may be {', '.join(SWEPT)}"
    if root not in SWEPT:
        what = "may not be swept" if root in Spec.model_fields else "names no field of the spec"
        return unknown(what, (f"{name}.…" for name in SWEPT), field)
    if field == "train.epochs":
        return "may not be swept: trials, and the baseline, are compared at equal epochs"
    known = _fields(root, sections)
    if known is not None and field not in known:
        return unknown("names no field of the spec", known, field)
    return None


def _fields(root: str, sections: Sections) -> list[str] | None:
    """The dotted paths that a sweep may set below `root`; None where only the model's builder knows."""
    if root == "train":
        return [f"train.{key}" for key in keys_at(("train",)) if key != "epochs"]
    if root == "objective" and root in sections and "task" in sections:
        settings = loss_settings(sections["task"])
        return [
            f"objective.{name}.{key}" for name in sections["objective"] for key in ("weight", *settings.get(name, {}))
        ]
    return None


def _extremes(dimension: Dimension) -> tuple[Any, ...]:
    """Values whose rightness implies that of all others; the ends of a real range are real: 1 becomes 1.0."""
    real = dimension.kind in ("uniform", "loguniform")
    return tuple(float(value) if real else value for value in dimension.values)


def _faults_with(root: str, values: Any, sections: Sections) -> list[Fault]:
    section, faults = read_section(root, values)
    if faults:
        return faults
    check = {"student": student_faults, "objective": objective_faults}.get(root)
    return list(check({**sections, root: section})) if check else []


def _plain(section: Any) -> Any:
    if isinstance(section, BaseModel):
        return section.model_dump(mode="json")
    return {name: term.model_dump(mode="json") for name, term in section.items()}
