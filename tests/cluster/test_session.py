"""A local Ray is reachable from this machine alone."""

from __future__ import annotations

import ipaddress

import psutil
import pytest

from distill_platform.cluster import connect, resources
from distill_platform.errors import InputError


def test_a_local_session_listens_on_loopback_only(ray_session: None) -> None:
    started = {psutil.Process().pid, *(child.pid for child in psutil.Process().children(recursive=True))}
    ours = [
        connection
        for connection in psutil.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.pid in started
    ]
    assert len(ours) > 3
    for connection in ours:
        address = ipaddress.ip_address(connection.laddr.ip)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        name = psutil.Process(connection.pid).name()
        assert (mapped or address).is_loopback, f"{name} listens on {connection.laddr}"


def test_connecting_again_changes_nothing(ray_session: None) -> None:
    before = resources()
    connect()
    assert resources() == before
    assert before[0] >= 1


def test_an_address_where_nothing_answers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(**given: object) -> None:
        raise ConnectionError("ray client connection timeout")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(InputError, match="no Ray cluster answers at 10.0.0.9:6379.*without --ray a local one"):
        connect("10.0.0.9:6379")
