"""A student's first weights: those of a saved model, or what it can take over of its teacher.

Each function gives a state for `student.load_state_dict`; nothing is changed in place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distill_platform.errors import ModelError
from distill_platform.models.axes import Axes, Axis, channel_axes
from distill_platform.models.network import Network
from distill_platform.models.prepared import Prepared
from distill_platform.models.saved import SavedModel

State = dict[str, Tensor]
Importance = Callable[[Network], Mapping[str, Tensor]]
NAMES_SHOWN = 5
"""Names of classes that an error lists: of a vocabulary there may be thousands."""


def from_weights(student: Network, given: Network) -> State:
    """The weights of a network of the same architecture. Raises ModelError, naming what differs, for another."""
    state = given.state_dict()
    _check_shapes(_shapes(student.state_dict()), state, "the given weights")
    return _copied(state)


def from_teacher(
    student: Network,
    teacher: Network,
    keep: Sequence[int] | None = None,
    importance: Importance | None = None,
) -> State:
    """What a student can take over of its teacher: all weights of an equal one, else as `from_layers`, and of a wider
    one as `from_channels`.

    importance: teacher -> what `from_channels` takes; asked only where it is needed, and by default weights' norms.

    Raises ModelError as these do.
    """

    def narrowed() -> State:
        return from_channels(student, teacher, keep, importance(teacher) if importance is not None else None)

    _check_architecture(student, teacher)
    own, given = student.state_dict(), teacher.state_dict()
    if keep is None and _stack_sizes(own) == _stack_sizes(given):
        return _copied(given) if _shapes(own) == _shapes(given) else narrowed()
    source = layer_map(own, given, keep)
    is_as_wide = all(source(name) in given and given[source(name)].shape == each.shape for name, each in own.items())
    return from_layers(student, teacher, keep) if is_as_wide else narrowed()


def check_start(student: SavedModel, given: SavedModel, how: str, keep: Sequence[int] | None = None) -> None:
    """Raises ModelError if a student cannot start from a model `how` ("weights" or "teacher") it is to.

    Both are built without memory.
    """
    if student.class_names != given.class_names:
        own, wanted = (", ".join(model.class_names[:NAMES_SHOWN]) for model in (given, student))
        raise ModelError(
            f"the model to start from has {len(given.class_names)} classes ({own} …), the student "
            f"{len(student.class_names)} ({wanted} …); give a model of the same classes in the same order"
        )
    with torch.device("meta"):
        networks = (student.build(), given.build())
    if how == "weights":
        from_weights(*networks)
    else:
        from_teacher(*networks, keep, _all_alike)


def _all_alike(teacher: Network) -> dict[str, Tensor]:
    """In place of importance, where there are no weights to tell it from."""
    parts = (part for axes in channel_axes(teacher.body).values() for axis in axes for part in axis or ())
    return {part.group: torch.zeros(part.num) for part in parts}


def from_layers(student: Network, teacher: Network, keep: Sequence[int] | None = None) -> State:
    """The teacher's weights, of each of its stacks of layers only as many as the student has.

    keep: which layers of the teacher, counted from 0, in order; by default evenly spaced ones, the first among them: of
    twice as many every other one. Sanh et al. 2019, arXiv:1910.01108, section 3.

    Raises ModelError if there is nothing to drop, if `keep` does not fit, or if the widths differ.
    """
    source = layer_map(student.state_dict(), teacher.state_dict(), keep)
    given = teacher.state_dict()
    state = {name: given[source(name)] for name in student.state_dict() if source(name) in given}
    _check_shapes(_shapes(student.state_dict()), state, "the teacher's layers")
    return _copied(state)


def from_channels(
    student: Network,
    teacher: Network,
    keep: Sequence[int] | None = None,
    importance: Mapping[str, Tensor] | None = None,
) -> State:
    """The teacher's weights, of each group of channels, heads and neurons only as many as the student has: those of the
    greatest importance, in their order. Fewer layers are taken over as by `from_layers`.

    importance: by group of the teacher `[num]`, such as `activation_importance` gives; by default weights' norms.
    Muralidharan et al. 2024, arXiv:2407.14679, section 2.

    Raises ModelError for bodies that cannot be narrowed, for a student that is wider or another architecture, and for
    heads of another width.
    """
    wanted, given = channel_axes(student.body), channel_axes(teacher.body)
    own, states = student.body.state_dict(), teacher.body.state_dict()
    _check_architecture(student, teacher)
    stacked = _stack_sizes(own) != _stack_sizes(states)
    source = layer_map(own, states, keep) if stacked or keep is not None else str
    missing = [name for name in own if source(name) not in states]
    if missing:
        raise ModelError(
            f"the teacher has no weights for the student's {', '.join(missing[:3])}; wanted fewer or as many"
        )
    scores = importance if importance is not None else weight_importance(teacher)
    kept = {
        part.group: _kept(part.group, source(part.group), part.num, part.unit, given, scores)
        for axes in wanted.values()
        for axis in axes
        for part in axis or ()
    }
    state = {}
    for name, axes in wanted.items():
        tensor = states[source(name)]
        for position, axis in enumerate(axes):
            if axis is not None:
                index = _index(axis, given[source(name)][position], kept)
                tensor = tensor.index_select(position, index.to(tensor.device))
        state[f"body.{name}"] = tensor
    _check_shapes({f"body.{name}": tensor.shape for name, tensor in own.items()}, state, "the teacher's channels")
    return _copied(state)


def weight_importance(network: Network) -> dict[str, Tensor]:
    """The L2 norm `[num]` of all weights that belong to each member of each group of channels, heads and neurons."""
    parameters = dict(network.body.named_parameters())
    squares: dict[str, Tensor] = {}
    for name, axes in channel_axes(network.body).items():
        for position, axis in enumerate(axes if name in parameters else ()):
            others = [each for each in range(len(axes)) if each != position]
            along = parameters[name].detach().double().square()
            along = along.sum(others) if others else along
            for group, values in _by_group(axis, along):
                squares[group] = squares.get(group, torch.zeros(())) + values.sum(-1)
    return {group: total.sqrt() for group, total in squares.items()}


@torch.inference_mode()
def activation_importance(network: Network, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """How strongly each member of each group speaks to the layers that listen to it: the L2 norm of its values there,
    summed over positions, examples and layers, `[num]`. `batches` are raw inputs; padding does not count.

    Of heads their outputs, of neurons their activations, of channels what the normed stream hands on: Muralidharan et
    al. 2024, arXiv:2407.14679, section 2.2.
    """
    axes = channel_axes(network.body)
    totals: dict[str, Tensor] = {}
    masks: list[Tensor | None] = []

    def listen(axis: Axis, channels: int) -> Any:
        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            values = given[0].detach().double().movedim(channels, -1)
            mask = masks[-1]
            if mask is not None and values.ndim == 3 and values.shape[:2] == mask.shape:
                values = values * mask[..., None]
            for group, part in _by_group(axis, values):
                strength = part.square().sum(-1).sqrt().flatten(0, -2).sum(0)
                totals[group] = totals.get(group, torch.zeros(())) + strength.cpu()

        return hook

    def remember(module: nn.Module, given: Any, prepared: Prepared) -> None:
        masks.append(prepared.mask)

    hooks = [network.preprocess.register_forward_hook(remember)]
    for name, module in network.body.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            channels = -1 if isinstance(module, nn.Linear) else 1
            hooks.append(module.register_forward_pre_hook(listen(axes[f"{name}.weight"][1], channels)))
    try:
        for batch in batches:
            network(batch)
    finally:
        for each in hooks:
            each.remove()
    return totals


def layer_map(student: Mapping[str, Any], teacher: Mapping[str, Any], keep: Sequence[int] | None = None) -> Any:
    """A function: name of a student's weight -> name of the teacher's weight that it starts from.

    A stack is what has the children 0, 1, 2 …. Raises ModelError if no stack of the teacher has more than the
    student's, if the student has more in any, or if `keep` does not name as many layers as the student has.
    """
    own, given = _stack_sizes(student), _stack_sizes(teacher)
    shorter = {stack: (num, given[stack]) for stack, num in own.items() if stack in given and given[stack] != num}
    if not shorter:
        raise ModelError("student and teacher have as many layers, so there is none to drop")
    for stack, (num, available) in shorter.items():
        if num > available:
            where = stack.removeprefix("body.")
            raise ModelError(f"{where}: the student has {num} layers, the teacher {available}; wanted at most as many")
    kept = {stack: _spaced(stack, num, available, keep) for stack, (num, available) in shorter.items()}

    def source(name: str) -> str:
        for stack, layers in kept.items():
            if found := re.match(rf"{re.escape(stack)}\.(\d+)(?=\.)", name):
                return f"{stack}.{layers[int(found[1])]}{name[found.end() :]}"
        return name

    return source


def _spaced(stack: str, num: int, available: int, keep: Sequence[int] | None) -> list[int]:
    if keep is None:
        return [index * available // num for index in range(num)]
    if len(keep) != num or sorted(set(keep)) != list(keep) or not 0 <= keep[0] <= keep[-1] < available:
        where = stack.removeprefix("body.")
        raise ModelError(f"{where}: got layers {list(keep)}, wanted {num} of 0 to {available - 1}, rising")
    return list(keep)


def _stack_sizes(names: Iterable[str]) -> dict[str, int]:
    """Name of each stack -> number of its layers."""
    found: dict[str, set[int]] = {}
    for name in names:
        parts = name.split(".")
        for position, part in enumerate(parts[1:-1], 1):
            if part.isdigit():
                found.setdefault(".".join(parts[:position]), set()).add(int(part))
    return {stack: len(numbers) for stack, numbers in found.items() if numbers == set(range(len(numbers)))}


def _kept(group: str, source: str, num: int, unit: int, given: Axes, scores: Mapping[str, Tensor]) -> Tensor:
    parts = (part for axes in given.values() for axis in axes for part in axis or ())
    found = next((part for part in parts if part.group == source), None)
    if found is None or found.num < num:
        raise ModelError(
            f"{group}: the student has {num}, the teacher {found.num if found else 'none'}; wanted at most as many"
        )
    if found.unit != unit:
        raise ModelError(
            f"{group}: the student's heads have {unit} channels, the teacher's {found.unit}; heads are kept whole, so "
            f"set the student's heads to its width / {found.unit}"
        )
    return scores[source].topk(num).indices.sort().values.cpu()


def _index(wanted: tuple[Any, ...], given: Axis, kept: Mapping[str, Tensor]) -> Tensor:
    """Which entries of the teacher's axis the student's axis takes."""
    assert given is not None
    found, start = [], 0
    for own, part in zip(wanted, given, strict=True):
        entries = kept[own.group][:, None] * part.unit + torch.arange(part.unit)
        found.append(start + entries.flatten())
        start += part.num * part.unit
    return torch.cat(found)


def _by_group(axis: Axis, values: Tensor) -> list[tuple[str, Tensor]]:
    """The last axis of `values`, `[…]` by part -> group and `[…, num, unit]`."""
    found, start = [], 0
    for part in axis or ():
        end = start + part.num * part.unit
        found.append((part.group, values[..., start:end].unflatten(-1, (part.num, part.unit))))
        start = end
    return found


def _check_architecture(student: Network, teacher: Network) -> None:
    if type(student.body) is not type(teacher.body):
        raise ModelError(
            f"the student is a {type(student.body).__name__}, its teacher a {type(teacher.body).__name__}; layers and "
            "channels can be taken over within one architecture"
        )


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def _check_shapes(wanted: Mapping[str, torch.Size], given: Mapping[str, Tensor], what: str) -> None:
    faults = [f"{name} is missing" for name in wanted if name not in given]
    faults += [f"{name} is not the student's" for name in given if name not in wanted]
    faults += [
        f"{name} is {list(given[name].shape)}, wanted {list(shape)}"
        for name, shape in wanted.items()
        if name in given and given[name].shape != shape
    ]
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise ModelError(f"{what} do not fit the student: {'; '.join(faults[:3])}{more}; give one of its architecture")


def _copied(state: Mapping[str, Tensor]) -> State:
    return {name: tensor.detach().clone() for name, tensor in state.items()}
