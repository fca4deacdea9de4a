"""A group of workers holds one model together, and answers as one worker with all of it would."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from distill_platform.cluster import over_workers
from distill_platform.cluster.group import gather_arrays, place_in_group, shard_weights
from distill_platform.data.schema import InputSpec
from distill_platform.errors import DataError
from distill_platform.models import Network, Standardize, build_network

IMAGES = torch.arange(40 * 64).reshape(40, 8, 8, 1).remainder(17).to(torch.uint8)


def make_network() -> Network:
    spec = InputSpec("image", (8, 8, 1), "uint8", 0, 16)
    return build_network("resnet", {"depth": 8}, spec, 10, Standardize((8.0,), (4.0,)), seed=3).eval()


@torch.inference_mode()
def sharded_forward() -> dict[str, Any]:
    network = make_network()
    num_weights = network.num_parameters
    shard_weights(network, torch.device("cpu"))
    logits = network(IMAGES)["logits"].values
    at_rest = sum(weight.to_local().numel() for weight in network.parameters())  # type: ignore[attr-defined]
    rank, size = place_in_group()
    own = {"logits": logits[rank::size].numpy(), "row": torch.arange(40)[rank::size].to(torch.int16).numpy()}
    listening = {conn.laddr.ip for conn in psutil.Process().net_connections() if conn.status == psutil.CONN_LISTEN}
    return {"share": at_rest / num_weights, "gathered": gather_arrays(own), "listening": listening}


def test_sharded_weights_give_the_same_bits_and_each_rank_keeps_half(ray_session: None) -> None:
    (found,) = over_workers(lambda: lambda item: sharded_forward(), [0], 1, num_cpus=0.5, group_size=2)
    with torch.inference_mode():
        wanted = make_network()(IMAGES)["logits"].values
    for rank, part in enumerate(found["gathered"]):
        assert part["row"].tolist() == list(range(rank, 40, 2))
        assert np.array_equal(part["logits"], wanted[rank::2].numpy())
    assert len(found["gathered"]) == 2
    assert 0.45 < found["share"] < 0.55
    assert all(ipaddress.ip_address(ip.removeprefix("::ffff:")).is_loopback for ip in found["listening"])


def test_a_group_whose_member_dies_is_replaced_as_a_whole(ray_session: None, tmp_path: Path) -> None:
    def make() -> Callable[[int], tuple[int, int]]:
        def call(item: int) -> tuple[int, int]:
            rank, _ = place_in_group()
            if item == 1 and rank == 1 and not (tmp_path / "died").exists():
                (tmp_path / "died").touch()
                os._exit(1)
            gathered = gather_arrays({"item": torch.tensor([item]).numpy()})
            return sum(int(part["item"][0]) for part in gathered), os.getpid()

        return call

    results = list(over_workers(make, range(4), 1, num_cpus=0.5, group_size=2))
    assert sorted(value for value, _ in results) == [0, 2, 4, 6]
    assert len({pid for _, pid in results}) == 2


def test_an_exception_of_one_member_is_raised_as_itself(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill_platform.cluster.workers.PEERS_S", 0.5)

    def make() -> Callable[[int], None]:
        def call(item: int) -> None:
            if place_in_group()[0] == 1:
                raise DataError(f"row {item} is bad")
            gather_arrays({"item": torch.zeros(1).numpy()})

        return call

    with pytest.raises(DataError, match="row 7 is bad"):
        list(over_workers(make, [7], 1, num_cpus=0.5, group_size=2))
