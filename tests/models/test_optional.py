"""Extras that are missing, or do not fit the torch that is here."""

from __future__ import annotations

import subprocess
import sys

import pytest

from distill_platform.errors import ModelError
from distill_platform.models.optional import optional_library


def test_a_missing_library_is_named_with_the_extra_that_brings_it() -> None:
    with (
        pytest.raises(ModelError, match=r"timm:x needs an extra .*: pip install 'distill-platform\[vision\]'"),
        optional_library("timm:x", "vision"),
    ):
        import no_such_library  # noqa: F401


def test_a_torchvision_of_another_torch_can_be_imported_for_what_needs_none_of_its_operators() -> None:
    code = (
        "from distill_platform.models.optional import optional_library\n"
        "with optional_library('timm:x', 'vision'):\n"
        "    import torchvision, timm\n"
        "print(torchvision.models.squeezenet1_1(num_classes=2) is not None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="out of luck"), optional_library("timm:x", "vision"):
        raise RuntimeError("out of luck")
