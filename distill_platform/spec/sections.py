"""Plain values -> validated sections, each read on its own, so that a fault in one hides none in another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from distill_platform.spec.faults import Fault, faults_of, got, unknown, wanted
from distill_platform.spec.schema import Spec


def read_sections(values: Any) -> tuple[dict[str, Any], list[Fault]]:
    """The sections that are right (those not given at their defaults), and what is wrong with the others."""
    if not isinstance(values, Mapping):
        return {}, [Fault((), f"got {got(values)}, wanted a mapping; `distill init` writes one to start from")]
    sections: dict[str, Any] = {}
    faults = [
        Fault((name,), unknown("unknown key", Spec.model_fields, name))
        for name in values
        if name not in Spec.model_fields
    ]
    for name, field in Spec.model_fields.items():
        if name in values:
            section, found = read_section(name, values[name])
            faults += found
            if not found:
                sections[name] = section
        elif field.is_required():
            faults.append(Fault((name,), f"missing; wanted {wanted((name,))}"))
        else:
            sections[name] = field.get_default(call_default_factory=True)
    return sections, faults


def read_section(name: str, value: Any) -> tuple[Any, list[Fault]]:
    """One section of the spec, or what is wrong with it."""
    try:
        # As JSON, because there a list may become a tuple though types are strict: "3" is not 3, and true is not 1.
        return _adapters()[name].validate_json(json.dumps(value), strict=True), []
    except ValidationError as error:
        return None, faults_of(error, name)


@cache
def _adapters() -> dict[str, TypeAdapter[Any]]:
    types: dict[str, Any] = {name: Annotated[field.annotation, field] for name, field in Spec.model_fields.items()}
    return {name: TypeAdapter(kind) for name, kind in types.items()}
