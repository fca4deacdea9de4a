"""Libraries that are extras of the package: where one is missing, an error says what to install."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from distill_platform.errors import ModelError

log = logging.getLogger(__name__)

MISMATCH = "operator torchvision::"
"""What torch says of an operator that torchvision's compiled part should have brought along."""
OPERATORS = ("nms", "qnms")
"""Whose forms torchvision wants to know when it is imported."""

_kept: list[torch.library.Library] = []


@contextmanager
def optional_library(model: str, extra: str) -> Iterator[None]:
    """Import or call a library of an extra within. Raises ModelError if it is missing."""
    try:
        _make_torchvision_importable()
        yield
    except ModuleNotFoundError as error:
        raise ModelError(f"{model} needs an extra ({error}): pip install 'distill-platform[{extra}]'") from error


def _make_torchvision_importable() -> None:
    """Declare the operators that torchvision's compiled part lacks where it was built for another build of torch.

    PyPI has no torchvision for the CPU build of torch. The import fails then, and with it that of timm and
    transformers, which import torchvision too; yet models of classes and of text need none of these operators: whoever
    calls one is told by torch that it has no kernel.
    """
    if _kept or importlib.util.find_spec("torchvision") is None:
        return
    try:
        import torchvision
    except RuntimeError as error:
        if MISMATCH not in str(error):
            raise
        log.warning("torchvision was built for another torch than this one; its operators for detection are not there")
        library = torch.library.Library("torchvision", "DEF")
        for name in OPERATORS:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
        import torchvision  # noqa: F401
