"""The YAML a user writes.

schema.py       what a spec holds: every section, key, type, bound and default
source.py       text -> plain values and their lines
sections.py     plain values -> validated sections
checks.py       names looked up, sections held against each other
terms.py        the terms of an objective: settings, schedules, layers, and what they ask of a cache
space.py        the search space against the spec
credentials.py  what may not stand in a spec
faults.py       what is wrong, where: got, wanted
loading.py      all of the above: load_spec
resolve.py      "auto" -> values
template.yaml   what `distill init` writes
"""

from importlib import resources

from distill_platform.spec.loading import load_spec, load_spec_json
from distill_platform.spec.resolve import Machine, resolve, this_machine
from distill_platform.spec.schema import Spec, json_schema


def template() -> str:
    """The commented spec that `distill init` writes."""
    return resources.files(__name__).joinpath("template.yaml").read_text()


__all__ = ["Machine", "Spec", "json_schema", "load_spec", "load_spec_json", "resolve", "template", "this_machine"]
