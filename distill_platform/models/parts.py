"""Which parts of a network learn how fast: factors of the learning rate by layer, 0 for those that stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from distill_platform.errors import ModelError
from distill_platform.models.capture import matching_layers
from distill_platform.models.network import Network
from distill_platform.models.saved import SavedModel


def lr_factors(network: Network, parts: Mapping[str, float], where: str = "train.parts") -> dict[str, float]:
    """Parameter of the body -> factor of its learning rate; 1 where no part holds it.

    parts: a layer's or a parameter's name, or a pattern (`blocks.*`), -> factor. Where two hold a parameter, the deeper
    one decides: `blocks.0` within `*`. Howard & Ruder 2018, arXiv:1801.06146, section 3.2.

    Raises ModelError for a name or pattern that fits nothing, with close ones, for two of one depth that disagree, for
    a weight that two layers share and parts disagree on, and for a factor below 0.
    """
    aliases: dict[int, list[str]] = {}
    for name, parameter in network.body.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(parameter), []).append(name)
    parameters = [name for shared in aliases.values() for name in shared]
    names = dict.fromkeys([*(name for name, _ in network.body.named_modules() if name), *parameters])
    of_names: dict[str, tuple[float, str]] = {}
    for pattern, factor in parts.items():
        if not factor >= 0:
            raise ModelError(f"{where}, {pattern}: lr_factor is {factor}, wanted 0 (frozen) or more")
        for name in matching_layers(pattern, names, where, "the student"):
            before = of_names.setdefault(name, (factor, pattern))
            if before[0] != factor:
                raise ModelError(
                    f"{where}: {before[1]!r} and {pattern!r} both name {name!r}, and disagree; leave one out"
                )
    factors = {}
    for shared in aliases.values():
        found = {own for name in shared if (own := _deepest(name, of_names)) is not None}
        if len(found) > 1:
            raise ModelError(f"{where}: {' and '.join(shared)} are one weight, and its parts disagree; leave one out")
        factors[shared[0]] = found.pop() if found else 1.0
    return factors


def parameter_groups(network: Network, parts: Mapping[str, float], where: str = "train.parts") -> list[dict[str, Any]]:
    """Groups for an optimiser, `params` and `lr_factor`, one per factor; those with factor 0 are in none.

    Raises ModelError as `lr_factors`, and if nothing is left to learn.
    """
    factors = lr_factors(network, parts, where)
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.body.named_parameters():
        if factors[name]:
            groups.setdefault(factors[name], []).append(parameter)
    if not groups:
        raise ModelError(f"{where} freezes every weight of the student; leave some to learn")
    return [{"params": parameters, "lr_factor": factor} for factor, parameters in groups.items()]


def frozen_modules(network: Network, parts: Mapping[str, float], where: str = "train.parts") -> list[nn.Module]:
    """The modules all of whose weights are frozen: to be kept in eval mode, or their batch norms would drift."""
    factors = lr_factors(network, parts, where)
    learning = {id(parameter) for name, parameter in network.body.named_parameters() if factors[name]}
    found = []
    for module in network.body.modules():
        own = [id(parameter) for parameter in module.parameters()]
        if own and learning.isdisjoint(own):
            found.append(module)
    return found


def freeze(network: Network, parts: Mapping[str, float], where: str = "train.parts") -> list[nn.Module]:
    """Have the frozen weights take no gradients; gives the modules to be kept in eval mode, as `frozen_modules`."""
    factors = lr_factors(network, parts, where)
    for name, parameter in network.body.named_parameters():
        parameter.requires_grad_(factors[name] > 0)
    return frozen_modules(network, parts, where) if parts else []


def joined(groups: Sequence[Mapping[str, Any]], beside: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """Groups of `parameter_groups`, and parameters beside the network's that learn at the full rate."""
    found = {group["lr_factor"]: list(group["params"]) for group in groups}
    if beside:
        found.setdefault(1.0, []).extend(beside)
    return [{"params": parameters, "lr_factor": factor} for factor, parameters in found.items()]


def check_parts(model: SavedModel, parts: Mapping[str, float], where: str = "train.parts") -> None:
    """Raises ModelError as `parameter_groups`, of a model that is built without memory."""
    with torch.device("meta"):
        parameter_groups(model.build(), parts, where)


def _deepest(name: str, of_names: Mapping[str, tuple[float, str]]) -> float | None:
    pieces = name.split(".")
    for length in range(len(pieces), 0, -1):
        if (found := of_names.get(".".join(pieces[:length]))) is not None:
            return found[0]
    return None
