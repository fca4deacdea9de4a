"""Which layers of a student are held against which of a teacher, and what a cache has to keep for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch

from distill_platform.errors import ModelError
from distill_platform.models.capture import ATTENTION, matching_layers, pooled

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a layer -> shape of its values of one example."""


class LayerPair(NamedTuple):
    """A layer of the teacher, and the one of the student that is held against it."""

    teacher: str
    student: str


def pair_layers(
    where: str, layers: Mapping[str, str], teacher: Iterable[str], student: Iterable[str]
) -> tuple[LayerPair, ...]:
    """The pairs that a term's `layers`, teacher's name or pattern -> student's, stand for.

    teacher, student: the names that there are. Where both sides are patterns, their layers pair in order: that of the
    names, with numbers by value, so `blocks.10` comes after `blocks.9`.

    Raises ModelError for what fits no layer, for patterns of different numbers of layers, and where attention weights
    would meet a layer's values.
    """
    pairs: list[LayerPair] = []
    for wanted, own in layers.items():
        if wanted.endswith(ATTENTION) != own.endswith(ATTENTION):
            raise ModelError(
                f"{where}: {wanted}: {own} pairs attention weights with a layer; wanted {ATTENTION} on both"
            )
        theirs, ours = _named(wanted, teacher, where, "the teacher"), _named(own, student, where, "the student")
        if len(theirs) != len(ours):
            raise ModelError(
                f"{where}: {wanted!r} is {len(theirs)} layers of the teacher ({', '.join(theirs)}), {own!r} is "
                f"{len(ours)} of the student ({', '.join(ours)}); wanted as many, or write the pairs out one by one"
            )
        pairs += map(LayerPair, theirs, ours)
    return tuple(pairs)


def pooled_shape(shape: tuple[int, ...], is_attention: bool) -> tuple[int, ...]:
    """Of what is left of values of this shape when they are pooled."""
    return tuple(pooled(torch.empty(1, *shape, device="meta"), is_attention=is_attention).shape[1:])


def merged(*wanted: Mapping[str, str]) -> dict[str, str]:
    """Names and patterns -> "pooled" or "whole"; whole where one of several wants it."""
    found: dict[str, str] = {}
    for layers in wanted:
        for pattern, mode in layers.items():
            found[pattern] = "whole" if "whole" in (mode, found.get(pattern)) else mode
    return found


def _named(pattern: str, names: Iterable[str], where: str, whose: str) -> list[str]:
    suffix = ATTENTION if pattern.endswith(ATTENTION) else ""
    known = [name.removesuffix(ATTENTION) for name in names if name.endswith(ATTENTION) == bool(suffix)]
    found = matching_layers(pattern.removesuffix(ATTENTION), known, where, whose)
    return [name + suffix for name in sorted(found, key=_in_order)]


def _in_order(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
