"""Knowledge distillation as a service that a team runs itself.

from distill_platform import load_spec, run
result = run(load_spec("spec.yaml"), workspace="./runs")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distill_platform.registry.loader import load_student as load_student
    from distill_platform.spec import load_spec as load_spec
    from distill_platform.spine import plan as plan
    from distill_platform.spine import run as run

_HOMES = {
    "load_spec": "distill_platform.spec",
    "load_student": "distill_platform.registry.loader",
    "plan": "distill_platform.spine",
    "run": "distill_platform.spine",
}
__all__ = ["load_spec", "load_student", "plan", "run"]


def __getattr__(name: str) -> Any:
    """Loaded on first use, so that importing the package loads neither torch nor ray."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
