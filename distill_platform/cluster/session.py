"""One Ray session per process: a local one, or that of an address."""

from __future__ import annotations

import logging
import os
from typing import Any, Literal

import ray

from distill_platform.errors import InputError

LOOPBACK = "127.0.0.1"
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


def connect(address: str | None = None) -> None:
    """Make sure that Ray runs. Without an address a local session is started, without dashboard, bound to loopback; its
    workers find modules of the current folder, as `import:` models need.

    Raises InputError if nothing answers at `address`.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:
        _stay_on_loopback()
        os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])])
        ray.init(address="local", include_dashboard=False, _node_ip_address=LOOPBACK, **QUIET)
        return
    try:
        ray.init(address=address, **QUIET)
    except (ConnectionError, ValueError) as error:
        raise InputError(
            f"no Ray cluster answers at {address}: {error}. Check the address, and RAY_AUTH_MODE and "
            "RAY_AUTH_TOKEN_PATH if the cluster wants a token; without --ray a local one is started"
        ) from error


def resources() -> tuple[float, float]:
    """(CPUs, GPUs) of the session, over all nodes."""
    found = ray.cluster_resources()
    return float(found.get("CPU", 0)), float(found.get("GPU", 0))


def gpu_precision() -> Literal["float32", "bfloat16", "float16"]:
    """The short format that the session's GPUs compute fast in, asked of one of them; float32 without any."""
    if resources()[1] < 1:
        return "float32"

    def ask() -> str:
        import torch

        if not torch.cuda.is_available():
            return "float32"
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"

    precision: Literal["float32", "bfloat16", "float16"] = ray.get(ray.remote(num_cpus=0, num_gpus=1)(ask).remote())
    return precision


def _stay_on_loopback() -> None:
    """Ray listens on all interfaces unless it believes that clusters are off, which it decides when it is imported.

    The environment tells its child processes, the constant tells this one; tests/cluster/ looks at the sockets.
    """
    from ray._private import ray_constants

    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
