"""How many inputs go through a network at a time when nothing is learned.

On a CPU the answer is computed, not timed: what an operation reads and writes has to fit a core's caches. Timing would
find the same within a few per cent, but another size each time, and per-row results may differ in the last bit with
the size: a build that is killed and begun again must come to the same bytes.

On a GPU it is timed, because nothing but the device knows where it is full; so whoever asks keeps the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CACHE_BYTES = 8 * 2**20
"""What the largest operation of a batch may read and write on a CPU. Of 2 to 400 MiB, 4 to 12 gave the best rate for a
CNN, ResNet-20 at two sizes and an MLP, on cores with 1 MiB of their own and 16 MiB of shared cache; 25 MiB were up to
2.8 times slower (fresh pages for every activation), 1 MiB loses to the cost of a call."""
SMALLEST, LARGEST = 16, 4096
MEMORY_SHARE = 0.25
"""Of the memory that is free: what activations may take. An operation's inputs and outputs are counted; what it needs
inside, and what is kept for a later addition, is about as much again."""
GAIN = 1.05
"""A GPU is full when twice the batch is not even this much faster per input."""

CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def batch_size_by_memory(
    network: nn.Module, sample: Tensor, memory_bytes: float, target_bytes: float = CACHE_BYTES
) -> int:
    """Inputs per pass, a power of two; `sample` are raw inputs `[B, *shape]`, on the network's device.

    memory_bytes: what this process may use; it counts only where the smallest batch is large.
    target_bytes: what the largest operation should read and write.
    """
    row_bytes = working_set_bytes(network, sample) / len(sample)
    size = SMALLEST
    while size < LARGEST and 2 * size * row_bytes <= target_bytes:
        size *= 2
    while size > 1 and size * row_bytes > MEMORY_SHARE * memory_bytes:
        size //= 2
    return size


def batch_size_on_gpu(run: Callable[[int], object], rate: Callable[[int], float] | None = None) -> int:
    """Inputs per pass on a GPU: doubled until its memory is full or the rate stops rising.

    run: one pass over so many inputs. rate: inputs per second of that; measured by default.
    """
    rate = rate or (lambda size: _measured_rate(run, size))
    best, size = 0.0, SMALLEST
    while size <= LARGEST:
        try:
            found = rate(size)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            # a quarter of what did not fit: memory gets fragmented over hours, and half of it may just have fitted
            return max(1, size // 4)
        if found < GAIN * best:
            return size // 2
        best, size = found, 2 * size
    return LARGEST


def free_memory_bytes() -> float:
    """Memory that this process may still take: of the machine, or of its cgroup where that leaves less."""
    free = float(psutil.virtual_memory().available)
    for limit, used in CGROUP_FILES:
        if Path(limit).is_file() and (text := Path(limit).read_text().strip()) != "max":
            free = min(free, int(text) - int(Path(used).read_text()))
    return max(free, 0.0)


@torch.inference_mode()
def working_set_bytes(network: nn.Module, inputs: Tensor) -> int:
    """The most bytes that one operation of a pass reads and writes, weights left out."""
    weights = [*network.parameters(), *network.buffers()]
    found = _WorkingSet({weight.untyped_storage().data_ptr() for weight in weights})
    whole = network.register_forward_hook(lambda *_: None)  # listened to, it cuts no sequence: others may be longer
    with found:
        network(inputs)
    whole.remove()
    return found.num_bytes


class _WorkingSet(TorchDispatchMode):
    def __init__(self, skipped: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.skipped, self.num_bytes = skipped, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, output)) if isinstance(leaf, Tensor)]
        sizes = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
        self.num_bytes = max(self.num_bytes, sum(size for at, size in sizes.items() if at not in self.skipped))
        return output


def _measured_rate(run: Callable[[int], object], size: int, num_runs: int = 3) -> float:
    """Inputs per second of the fastest of a few passes, the first left out: it chooses kernels."""
    run(size)
    torch.cuda.synchronize()
    seconds = []
    for _ in range(num_runs):
        started = time.perf_counter()
        run(size)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return size / min(seconds)
