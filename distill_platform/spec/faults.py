"""What is wrong with a spec: where, got, wanted; all faults of a file in one SpecError.

Pydantic says that a value is wrong; what was wanted instead is read from the JSON schema at that place, so a field's
type and bounds are written once, in schema.py.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import ValidationError

from distill_platform.errors import SpecError
from distill_platform.spec.schema import json_schema

Path = tuple[str | int, ...]
"""Where a value stands in the spec: ("train", "lr"), or ("gates", "checks", 0)."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and where."""

    path: Path
    message: str


@dataclass(frozen=True)
class Origin:
    """Where each value of a spec was written: a line of the file, or None for `--set`."""

    name: str
    lines: Mapping[Path, int | None]

    def line(self, path: Path) -> int | None:
        """The line of a value; of what it would stand in, if it is missing."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def spec_error(faults: Iterable[Fault], origin: Origin) -> SpecError:
    """All faults as one error, a line each, in the order of the file, overrides last."""

    def order(fault: Fault) -> tuple[bool, int]:
        line = origin.line(fault.path)
        return line is None, line or 0

    def render(fault: Fault) -> str:
        line = origin.line(fault.path)
        where = "--set" if line is None else f"{origin.name}:{line}"
        return f"{where}  {dotted(fault.path)}: {fault.message}" if fault.path else f"{where}  {fault.message}"

    return SpecError("\n".join(render(fault) for fault in sorted(faults, key=order)))


def faults_of(error: ValidationError, section: str) -> list[Fault]:
    """Pydantic's errors in a section as faults, one for each place (a union reports every branch that it tried)."""
    faults: dict[Path, Fault] = {}
    for entry in error.errors(include_url=False):
        path, parent = _walk((section, *entry["loc"]))
        faults.setdefault(path, Fault(path, _message(path, parent, entry["type"], entry["msg"], entry["input"])))
    return list(faults.values())


def dotted(path: Path) -> str:
    """("train", "lr") as train.lr."""
    return ".".join(str(part) for part in path)


def unknown(what: str, allowed: Iterable[str], name: str) -> str:
    """The message for a name that is none of those allowed, with the closest one."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    suggestion = f'did you mean "{close[0]}"? ' if close else ""
    return f"{what}; {suggestion}allowed here: {', '.join(names) or 'none'}"


def got(value: Any) -> str:
    """A value and its type, as the user wrote it: `"fast" (a string)`."""
    match value:
        case None:
            return "null"
        case bool():
            return f"{json.dumps(value)} (a boolean)"
        case int():
            return f"{value} (an integer)"
        case float():
            return f"{value} (a number)"
        case str():
            return f"{json.dumps(_shortened(value), ensure_ascii=False)} (a string)"
        case list() | tuple():
            return f"{_shortened(json.dumps(value))} (a list)"
        case _:
            return "a mapping"


def wanted(path: Path) -> str:
    """What the spec takes at a place: "a number > 0"."""
    schema = _schema_at(path)
    return "something else" if schema is None else _describe(schema)


def keys_at(path: Path) -> list[str]:
    """The keys that the section at a place has of itself (not those of a model or a loss)."""
    return list((_schema_at(path) or {}).get("properties", {}))


def _message(path: Path, parent: dict[str, Any], kind: str, text: str, value: Any) -> str:
    match kind:
        case "spec":
            return text
        case "missing":
            return f"missing; wanted {wanted(path)}"
        case "extra_forbidden":
            return unknown("unknown key", parent.get("properties", {}), str(path[-1]))
        case "union_tag_not_found":
            return f"the kind is missing; wanted {wanted(path)}"
        case "union_tag_invalid":
            return f"got {_shortened(json.dumps(value))}, wanted {wanted(path)}"
        case _:
            return f"got {got(value)}, wanted {wanted(path)}"


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


@cache
def _root() -> dict[str, Any]:
    return json_schema()


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    target = _root()["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}


def _branches(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [_resolved(branch) for branch in schema.get("anyOf", schema.get("oneOf", []))]


def _step(schema: dict[str, Any], part: str | int) -> dict[str, Any] | None:
    """The schema one level below, or None if nothing is known there."""
    schema = _resolved(schema)
    if isinstance(part, int):
        if len(prefix := schema.get("prefixItems", [])) > part:
            return _resolved(prefix[part])
        if "items" in schema:
            return _resolved(schema["items"])
    elif part in schema.get("properties", {}):
        return _resolved(schema["properties"][part])
    elif isinstance(schema.get("additionalProperties"), dict):
        return _resolved(schema["additionalProperties"])
    below = (_step(branch, part) for branch in _branches(schema))
    return next((found for found in below if found is not None), None)


def _schema_at(path: Path) -> dict[str, Any] | None:
    schema: dict[str, Any] | None = _root()
    for part in path:
        schema = None if schema is None else _step(schema, part)
    return schema


def _walk(loc: tuple[str | int, ...]) -> tuple[Path, dict[str, Any]]:
    """A pydantic location without the names of union branches, which stand in no file; and its parent's schema."""
    path: Path = ()
    parent: dict[str, Any] = {}
    schema: dict[str, Any] | None = _root()
    for part in loc:
        known = schema or {}
        tags = known.get("discriminator", {}).get("mapping", {})
        below = _step(known, part)
        if part in tags:
            schema = _resolved({"$ref": tags[part]})
        elif below is not None or "anyOf" not in known:
            path, parent, schema = (*path, part), known, below
    return path, parent


def _describe(schema: dict[str, Any]) -> str:
    if "wanted" in schema:
        return str(schema["wanted"])
    if "discriminator" in schema:
        tags = ", ".join(schema["discriminator"]["mapping"])
        return f"a mapping with {schema['discriminator']['propertyName']}: one of {tags}"
    if branches := _branches(schema):
        return " or ".join(_describe(branch) for branch in branches)
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    match schema.get("type"):
        case "object":
            return _describe_mapping(schema)
        case "array":
            return _describe_list(schema)
        case "number" | "integer" as kind:
            return _describe_number(kind, schema)
        case "string":
            return "a string"
        case "boolean":
            return "true or false"
        case "null":
            return "null"
        case _:
            return "any value"


def _describe_mapping(schema: dict[str, Any]) -> str:
    keys = schema.get("required") or list(schema.get("properties", {}))
    return f"a mapping with {', '.join(keys)}" if keys else "a mapping"


def _describe_list(schema: dict[str, Any]) -> str:
    if "prefixItems" in schema:
        return f"[{', '.join(_describe(_resolved(item)) for item in schema['prefixItems'])}]"
    filled = "non-empty " if schema.get("minItems") else ""
    return f"a {filled}list, each {_describe(_resolved(schema.get('items', {})))}"


def _describe_number(kind: str, schema: dict[str, Any]) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    bounds = " and ".join(f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema)
    noun = "an integer" if kind == "integer" else "a number"
    return f"{noun} {bounds}".rstrip()
