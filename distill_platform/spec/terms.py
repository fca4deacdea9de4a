"""The terms of an objective: names, settings, schedules and layers, and what each asks of data and cache.

The tables of names live in modules that load torch, so they are imported where a spec is checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import inf
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from distill_platform.spec.faults import Fault, Path, got, unknown, wanted
from distill_platform.spec.schema import DataSpec, Dimension, Schedule

if TYPE_CHECKING:
    from distill_platform.cache import Demand
    from distill_platform.tasks.setting import Setting

Sections = Mapping[str, Any]

LAYERS = "a non-empty mapping, the teacher's layer: the student's layer; `distill models layers` lists them"


def objective_faults(sections: Sections) -> Iterator[Fault]:
    """Losses and settings that do not exist, values that they do not take, and an objective that weighs nothing."""
    if "objective" not in sections or "task" not in sections:
        return
    from distill_platform.objective.schedules import ends

    terms = {name: term.model_dump(mode="json") for name, term in sections["objective"].items()}
    known = loss_settings(sections["task"])
    for name, term in terms.items():
        if name not in known:
            yield Fault(("objective", name), unknown("no loss has this name", known, name))
        else:
            yield from _term_faults(name, term, known[name])
    if not any(value > 0 for term in terms.values() for value in ends(term["weight"])):
        yield Fault(("objective",), "every weight is 0: there is nothing to train on; wanted one weight > 0")


def _term_faults(name: str, term: Mapping[str, Any], known: Mapping[str, Setting]) -> Iterator[Fault]:
    from distill_platform.objective import LOSSES
    from distill_platform.tasks.setting import Setting

    settings = {"weight": Setting(1.0, low=0), **known}
    takes_layers = name in LOSSES and LOSSES[name].takes_layers
    for key, value in term.items():
        path = ("objective", name, key)
        if key == "layers" and takes_layers:
            yield from _layers_faults(path, value)
        elif key not in settings:
            yield Fault(path, unknown("unknown key", [*settings, *(["layers"] if takes_layers else [])], key))
        else:
            yield from _setting_faults(path, value, settings[key])
    if takes_layers and "layers" not in term:
        yield Fault(("objective", name), f"layers is missing; wanted {LAYERS}")


def mixing_faults(sections: Sections) -> Iterator[Fault]:
    """A loss that asks for an example's one label, over views that mix two examples."""
    from distill_platform.objective.response import RESPONSE

    data: DataSpec | None = sections.get("data")
    mixing = mixing_transforms(data) if data else []
    for name in sections.get("objective", ()) if mixing else ():
        if name in RESPONSE and RESPONSE[name].needs_labels:
            fitting = ", ".join(other for other, loss in RESPONSE.items() if not loss.needs_labels)
            yield Fault(
                ("objective", name),
                f"splits the classes by an example's label, and {', '.join(mixing)} in data.views makes examples of "
                f"two; take it out of the views, or one of {fitting}",
            )


def mixing_transforms(data: DataSpec) -> list[str]:
    """The names of those of a spec's transforms that make one example of two."""
    from distill_platform.data.transforms import TRANSFORMS

    names = [each.name for each in data.views.augment]
    return [name for name in names if name in TRANSFORMS and TRANSFORMS[name].mix is not None]


def _layers_faults(path: Path, layers: Any) -> Iterator[Fault]:
    if not isinstance(layers, Mapping) or not layers:
        yield Fault(path, f"got {'an empty mapping' if layers == {} else got(layers)}, wanted {LAYERS}")
        return
    for layer, own in layers.items():
        if not isinstance(own, str):
            yield Fault((*path, layer), f"got {got(own)}, wanted the name of a layer of the student")


def _setting_faults(path: Path, value: Any, setting: Setting) -> Iterator[Fault]:
    """A value that the setting does not take; of a schedule, its own faults, or an end that it does not take.

    Only real numbers are scheduled: words, truth values and counts have nothing in between.
    """
    from distill_platform.objective.schedules import ends

    if not isinstance(setting.default, float) or not isinstance(value, Mapping):
        if not setting.takes(value):
            yield Fault(path, f"got {got(value)}, wanted {setting.wanted}")
        return
    faults = list(_schedule_faults(path, value))
    yield from faults
    for key, end in () if faults else zip(("from", "to"), ends(value), strict=True):
        if not setting.takes(end):
            yield Fault((*path, key), f"got {got(end)}, wanted {setting.wanted}")


def _schedule_faults(path: Path, value: Mapping[str, Any]) -> Iterator[Fault]:
    from distill_platform.objective.schedules import DEFAULTS

    try:
        Schedule.model_validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        for entry in error.errors(include_url=False):
            key = str(entry["loc"][0])
            needed = f"wanted {wanted(('objective', path[1], 'weight', key))}"  # a weight's schedule has the same keys
            match entry["type"]:
                case "extra_forbidden":
                    message = unknown("unknown key", ["from", "to", *DEFAULTS], key)
                case "missing":
                    message = f"missing; {needed}"
                case _:
                    message = f"got {got(entry['input'])}, {needed}"
            yield Fault((*path, key), message)


def loss_settings(task: str) -> dict[str, dict[str, Setting]]:
    """Loss name -> its settings; `task` is the task's own loss."""
    from distill_platform.objective import LOSSES
    from distill_platform.tasks import TASKS

    own = TASKS[task].settings if task in TASKS else {}
    return {"task": dict(own), **{name: dict(loss.settings) for name, loss in LOSSES.items()}}


def term_demands(name: str, given: Mapping[str, Any], space: Mapping[str, Dimension]) -> Iterator[tuple[Path, Demand]]:
    """What a loss of outputs asks of a cache, and where the spec says so.

    Logits compared as they are, or as z-scores, count as softened without bound: the limit of a softmax.
    """
    from distill_platform.cache import Demand
    from distill_platform.objective.response import RESPONSE
    from distill_platform.objective.schedules import ends

    loss = RESPONSE[name]
    own = {**{key: each.default for key, each in loss.settings.items()}, **given}
    yield ("objective", name), Demand(loss.accepts())
    if loss.unsoftened:
        yield ("objective", name), Demand(loss.accepts(), (inf,))
    for key in [key for key in ("temperature", *loss.dense_only) if key in loss.settings]:
        field = f"objective.{name}.{key}"
        swept = space[field].values if field in space else ()
        for place, value in [(("objective", name, key), own[key]), *((("sweep", "space", field), v) for v in swept)]:
            accepts = loss.accepts({**own, key: value})
            if value is True:
                yield place, Demand(accepts)
                yield place, Demand(accepts, (inf,))
            elif key == "temperature":
                for end in ends(value):
                    if loss.settings[key].takes(end):
                        yield place, Demand(accepts, (float(end),))
