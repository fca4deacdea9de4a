"""Weights stored in a shorter number format. What is judged later is the model read back from them."""

from __future__ import annotations

from pathlib import Path

from distill_platform.models import load_network, save_model


def store_weights(student: Path, folder: Path, weights: str) -> None:
    """Write the model of `student` to `folder` with its weights as float32, float16 or bfloat16.

    Raises what `load_network` raises.
    """
    model, network = load_network(student)
    save_model(folder, model, network, weights)
