"""What a sweep searches: dotted paths of the spec, each with a typed range."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna

from distill_platform.errors import SpecError

Settings = dict[str, Any]
"""Dotted path -> value."""


@dataclass(frozen=True)
class Range:
    """kind: uniform, loguniform, int, logint (bounds included), or choice (values of any JSON type)."""

    kind: str
    values: tuple[Any, ...]

    @property
    def distribution(self) -> optuna.distributions.BaseDistribution:
        """The same for Optuna; a choice is searched by its position, since lists cannot be categories."""
        if self.kind == "choice":
            return optuna.distributions.CategoricalDistribution(tuple(range(len(self.values))))
        low, high = self.values
        log = self.kind.startswith("log")
        if self.kind in ("int", "logint"):
            return optuna.distributions.IntDistribution(low, high, log=log)
        return optuna.distributions.FloatDistribution(low, high, log=log)

    def holds(self, value: Any) -> bool:
        """Whether a value lies in the range."""
        if self.kind == "choice":
            return value in self.values
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return (
            is_number and self.values[0] <= value <= self.values[1] and (self.kind[-3:] != "int" or value == int(value))
        )

    def to_optuna(self, value: Any) -> Any:
        """A value as Optuna's parameter."""
        return self.values.index(value) if self.kind == "choice" else value

    def from_optuna(self, parameter: Any) -> Any:
        """Optuna's parameter as a value."""
        return self.values[parameter] if self.kind == "choice" else parameter


Space = dict[str, Range]


def parse_space(space: Mapping[str, Mapping[str, Any]]) -> Space:
    """From the spec's form, `{path: {kind: values}}`, validated by the spec."""
    parsed = {}
    for path, given in space.items():
        ((kind, values),) = given.items()
        parsed[path] = Range(kind, tuple(values))
    return parsed


def apply_settings(base: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """A copy of nested plain values with settings at their dotted paths. Raises SpecError for a path into nothing."""
    applied = copy.deepcopy(dict(base))
    for path, value in settings.items():
        *folders, name = path.split(".")
        target = applied
        for folder in folders:
            if not isinstance(target.get(folder), dict):
                raise SpecError(f"sweep.space: {path} leads nowhere: {folder!r} is not among {', '.join(target)}")
            target = target[folder]
        target[name] = value
    return applied


def settings_of(base: Mapping[str, Any], space: Space) -> Settings | None:
    """The values that the spec itself gives to the searched paths, if all are given and lie in their ranges."""
    settings: Settings = {}
    for path, range_ in space.items():
        value: Any = base
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is None or not range_.holds(value):
            return None
        settings[path] = value
    return settings
