"""Which parts of a network learn how fast: factors of the learning rate by layer, 0 for those that stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from distill_platform.errors import ModelError
from distill_platform.models.capture import matching_layers
from distill_platform.models.network import Network


def lr_factors(network: Network, parts: Mapping[str, float], where: str = "train.parts") -> dict[str, float]:
    """Parameter of the body -> factor of its learning rate; 1 where no part holds it.

    parts: a layer's or a parameter's name, or a pattern (`blocks.*`), -> factor. Where two hold a parameter, the deeper
    one decides: `blocks.0` within `*`. Howard & Ruder 2018, arXiv:1801.06146, section 3.2.

    Raises ModelError for a name or pattern that fits nothing, with close ones, for two of one depth that disagree, and
    for a factor below 0.
    """
    parameters = [name for name, _ in network.body.named_parameters()]
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
    return {name: _deepest(name, of_names) for name in parameters}


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
    found = []
    for prefix, module in network.body.named_modules():
        own = [factors[f"{prefix}.{name}" if prefix else name] for name, _ in module.named_parameters()]
        if own and not any(own):
            found.append(module)
    return found


def _deepest(name: str, of_names: Mapping[str, tuple[float, str]]) -> float:
    pieces = name.split(".")
    for length in range(len(pieces), 0, -1):
        if (found := of_names.get(".".join(pieces[:length]))) is not None:
            return found[0]
    return 1.0
