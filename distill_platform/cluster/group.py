"""A group of processes that hold one model together: each keeps a part of its weights, all see each answer.

The weights are sharded with FSDP2 (`torch.distributed.fsdp.fully_shard`): at rest a rank holds its part of each
parameter, and a forward pass gathers one block at a time. What is computed is what one process would compute, bit for
bit: gathering copies weights and adds nothing up.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import psutil
import ray
import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import TCPStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

TIMEOUT_S = 600
"""How long a member waits for the others in one exchange; they differ by a batch at most."""

Arrays = dict[str, np.ndarray[Any, Any]]


class Door:
    """Where the members of a group find each other: a socket of rank 0, on its node's own address and no other."""

    def __init__(self) -> None:
        self._socket = socket.create_server((_node_address(), 0))
        host, port = self._socket.getsockname()[:2]
        self.address: tuple[str, int] = (host, port)

    def hand_over(self) -> int:
        """The listening socket's file descriptor; whoever takes it closes it."""
        return self._socket.detach()


def join(address: tuple[str, int], rank: int, size: int, door: Door | None = None) -> None:
    """Become a member of the process group that meets at `address`: gloo between CPUs, NCCL between GPUs.

    door: of rank 0, which listens there.
    """
    os.environ.setdefault("GLOO_SOCKET_IFNAME", _interface(_node_address()))
    timeout = timedelta(seconds=TIMEOUT_S)
    listening = door.hand_over() if door else None
    store = TCPStore(*address, size, door is not None, timeout=timeout, master_listen_fd=listening)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "cpu:gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)


def place_in_group() -> tuple[int, int]:
    """(rank, size) of this process in its group; (0, 1) outside one."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def shard_weights(network: nn.Module, device: torch.device) -> None:
    """Keep this rank's part of each parameter, on `device`; every forward pass must then be made by all ranks at once.

    The modules of a Sequential or ModuleList, where networks keep their blocks, are gathered one at a time; what
    stands outside them is gathered for the whole pass. Weights come from host memory, which has to hold the whole
    model while it is loaded; the device holds one block beside this rank's parts.
    """
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for module in reversed(list(network.modules())):
        if isinstance(module, nn.Sequential | nn.ModuleList):
            for block in module:
                if not isinstance(block, nn.ModuleList | FSDPModule) and any(True for _ in block.parameters()):
                    fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


def gather_arrays(arrays: Arrays) -> list[Arrays]:
    """Everyone's arrays `[N, …]` at rank 0, in order of rank; nothing at the others.

    All ranks have the same names, dtypes and trailing axes; N is each rank's own.
    """
    rank, size = place_in_group()
    num_rows = torch.tensor([len(next(iter(arrays.values())))])
    if rank > 0:
        dist.send(num_rows, 0)
        for values in arrays.values():
            _send(values)
        return []
    return [arrays, *(_received(arrays, other) for other in range(1, size))]


def _received(like: Mapping[str, np.ndarray[Any, Any]], source: int) -> Arrays:
    num_rows = torch.zeros(1, dtype=torch.int64)
    dist.recv(num_rows, source)
    received = {name: np.empty((int(num_rows), *own.shape[1:]), own.dtype) for name, own in like.items()}
    for values in received.values():
        if values.size:
            dist.recv(_as_bytes(values), source)
    return received


def _send(values: np.ndarray[Any, Any]) -> None:
    if values.size:
        dist.send(_as_bytes(np.ascontiguousarray(values)), 0)


def _as_bytes(values: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(values.reshape(-1).view(np.uint8))


def _node_address() -> str:
    here = ray.get_runtime_context().get_node_id()
    (address,) = [node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == here]
    return str(address)


def _interface(address: str) -> str:
    """The network interface that has an address."""
    return next(
        name for name, found in psutil.net_if_addrs().items() if any(entry.address == address for entry in found)
    )
