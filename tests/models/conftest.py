"""Libraries that can be imported."""

from __future__ import annotations

import pytest

from distill_platform.models.optional import optional_library


@pytest.fixture(scope="session")
def vision_libraries() -> None:
    """torchvision, and what imports it, whatever torch its wheel was built for."""
    with optional_library("the tests", "vision"):
        import torchvision  # noqa: F401
