"""A spec's text -> plain values, and the line each one was written on.

Plain scalars are read as YAML 1.2's core schema has them: `1e-3` is a number, and `on`, `no` and `012:30` are no
booleans and no base-60 numbers. Tags and anchors are refused: a spec holds values, and says each one once.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from distill_platform.spec.faults import Fault, Path, dotted

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "true": True, "True": True, "false": False, "False": False}
_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")}


@dataclass
class Document:
    """Values as read, the line of each path, and what was wrong with the text."""

    value: Any = None
    lines: dict[Path, int | None] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def read_yaml(text: str) -> Document:
    """Read one YAML document. Syntax errors, duplicate keys, tags and anchors become faults of the result."""
    document = Document()
    try:
        node = yaml.compose(text, Loader=_Composer)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        document.lines[()] = mark.line + 1 if mark else 1
        column = f" at column {mark.column + 1}" if mark else ""
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        document.faults.append(Fault((), f"not YAML: {problem}{column}"))
    except yaml.reader.ReaderError as error:
        document.lines[()] = text.count("\n", 0, error.position) + 1
        document.faults.append(Fault((), f"not YAML: {error.reason} (character {error.character!r})"))
    else:
        document.lines[()] = 1
        document.value = None if node is None else _value(node, (), document)
    return document


def read_scalar(text: str) -> str | int | float | bool | None:
    """A plain (unquoted) scalar as YAML 1.2's core schema reads it."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


class _Composer(yaml.BaseLoader):
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            raise yaml.composer.ComposerError(
                None, None, "anchors and aliases are not read here; write the value out", event.start_mark
            )
        return super().compose_node(parent, index)


def _value(node: yaml.Node, path: Path, document: Document) -> Any:
    document.lines.setdefault(path, node.start_mark.line + 1)
    if node.tag not in _PLAIN_TAGS:
        document.faults.append(Fault(path, f"the tag {node.tag} is not read here; write a plain value"))
        return None
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, position), document) for position, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    return read_scalar(node.value) if node.style is None else node.value


def _mapping(node: yaml.MappingNode, path: Path, document: Document) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            document.faults.append(Fault(path, f"line {line} has a key that is no text; wanted `key: value`"))
            continue
        key = key_node.value
        below = (*path, key)
        if key in values:
            first = document.lines[below]
            document.faults.append(Fault(path, f"{dotted(below)} is given on line {first} and again on line {line}"))
            continue
        document.lines[below] = line
        values[key] = _value(value_node, below, document)
    return values
