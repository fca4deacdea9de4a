from __future__ import annotations

from collections.abc import Callable

import pytest

from distill_platform.errors import SpecError
from distill_platform.spec import Spec, load_spec

SMALL = """\
name: small
data:
  source: sklearn:wine
teacher:
  model: {name: mlp, hidden: [64]}
student:
  name: mlp
  hidden: [8]
gates:
  checks:
    - accuracy >= 0.8
"""


@pytest.fixture
def small() -> str:
    """The shortest spec: what is required, on known lines."""
    return SMALL


@pytest.fixture
def faults() -> Callable[..., list[str]]:
    """The lines of the SpecError that a spec, after overrides, is refused with."""

    def refused(text: str = SMALL, *overrides: str) -> list[str]:
        with pytest.raises(SpecError) as raised:
            load_spec(text, overrides)
        return str(raised.value).splitlines()

    return refused


@pytest.fixture
def small_with() -> Callable[..., Spec]:
    """The small spec after overrides."""
    return lambda *overrides: load_spec(SMALL, overrides)
