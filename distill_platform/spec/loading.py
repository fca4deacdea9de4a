"""Text and overrides -> a Spec, or one SpecError that lists all that is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from distill_platform.errors import NotFound, SpecError
from distill_platform.spec.checks import section_faults
from distill_platform.spec.credentials import credential_faults
from distill_platform.spec.faults import Fault, Origin, Path, dotted, got, spec_error
from distill_platform.spec.schema import Spec
from distill_platform.spec.sections import read_sections
from distill_platform.spec.source import Document, read_yaml
from distill_platform.spec.space import space_faults
from distill_platform.storage import open_file


def load_spec(path_or_text: str | FilePath, overrides: Sequence[str] = ()) -> Spec:
    """Read a spec from a file (local or s3://) or, where it holds a line break, from the text itself.

    overrides: `a.b=value` each, the value read as YAML; later ones win. Paths in a spec are relative to the current
    folder. Raises SpecError, with every fault on a line of its own: `spec.yaml:12  train.lr: got …, wanted …`.
    """
    name, text = _read(path_or_text)
    document = read_yaml(text)
    origin = Origin(name, document.lines)
    if document.faults:
        raise spec_error(document.faults, origin)
    if faults := _apply(document, overrides):
        raise spec_error(faults, origin)
    if faults := list(credential_faults(document.value)):  # alone: no other message may show what stands there
        raise spec_error(faults, origin)
    return _checked(document.value, origin)


def load_spec_json(values: Mapping[str, Any], name: str = "spec.json") -> Spec:
    """A spec as `Spec.to_json` stored it. Names in it are not looked up: they were when it was stored.

    Raises SpecError; `name` says where the values came from.
    """
    sections, faults = read_sections(values)
    if faults:
        raise spec_error(faults, Origin(name, {}))
    return Spec(**sections)


def checked_spec(values: Mapping[str, Any], name: str) -> Spec:
    """A spec from plain values, names in it looked up as in one that a user wrote; `name` says where they came from.

    Raises SpecError.
    """
    return _checked(values, Origin(name, {}))


def _checked(values: Any, origin: Origin) -> Spec:
    sections, faults = read_sections(values)
    faults += section_faults(sections) + space_faults(sections)
    if faults:
        raise spec_error(faults, origin)
    return Spec(**sections)


def _read(path_or_text: str | FilePath) -> tuple[str, str]:
    if isinstance(path_or_text, str) and "\n" in path_or_text:
        return "spec", path_or_text
    uri = str(path_or_text)
    if FilePath(uri).is_dir():
        raise SpecError(f"{uri} is a folder; wanted a spec file in it")
    storage, name = open_file(uri)
    try:
        return uri, storage.read(name).decode()
    except NotFound as error:
        raise SpecError(f"{uri}: no such file; `distill init {uri}` writes a spec to start from") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{uri}: byte {error.start} is not UTF-8; wanted a YAML text") from error


def _apply(document: Document, overrides: Sequence[str]) -> list[Fault]:
    """Put each override in its place in the document; its line becomes None."""
    faults = []
    for override in overrides:
        field, separator, text = override.partition("=")
        path: Path = tuple(field.strip().split("."))
        given = read_yaml(text)
        document.lines[path] = None
        if not separator or not all(path):
            faults.append(Fault((), f"{override}: wanted a.b=value"))
            document.lines[()] = None
        elif given.faults:
            faults += [Fault(path, fault.message) for fault in given.faults]
        elif blocked := _put(document, path, given.value):
            faults.append(blocked)
    return faults


def _put(document: Document, path: Path, value: Any) -> Fault | None:
    """Set the value under `path`, making the mappings that lead there."""
    if document.value is None:
        document.value = {}
    place = document.value
    for depth, part in enumerate(path):
        if not isinstance(place, dict):
            return Fault(path, f"{dotted(path[:depth])} is {got(place)}, which has no keys; set it as a whole")
        if depth == len(path) - 1:
            break
        if place.get(part) is None:
            place[part] = {}
            document.lines[path[: depth + 1]] = None
        place = place[part]
    place[path[-1]] = value
    for below in [line for line in document.lines if line[: len(path)] == path]:
        document.lines[below] = None
    return None
