"""Ports in use and who has them."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from easel_contracts.errors import Refused
from easel_standalone import ports, supported


def test_port_in_use_names_its_holder() -> None:
    """The error says who, and how to move our port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Refused, match=f"pid {os.getpid()}") as refused:
            ports.require_free("127.0.0.1", port, "data", "--port")

    assert "--port" in refused.value.hint
    ports.require_free("127.0.0.1", port, "data", "--port")


def test_port_taken_on_all_addresses_is_in_use() -> None:
    """Another listener on 0.0.0.0 with address reuse still has the port."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("0.0.0.0", 0))
        taken.listen()

        assert not ports.is_free("127.0.0.1", taken.getsockname()[1])


def test_port_of_one_that_would_share_it_is_in_use() -> None:
    """Envoy allows others of the same user to listen at its port: two platforms would get each other's calls."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert not ports.is_free("127.0.0.1", port)
        with pytest.raises(Refused, match=f"also that of pid {os.getpid()}") as refused:
            ports.require_alone("127.0.0.1", port, {1}, "control", "--control-port")
        ports.require_alone("127.0.0.1", port, {os.getpid()}, "control", "--control-port")
        ports.require_alone("127.0.0.2", port, {1}, "control", "--control-port")

    assert (refused.value.code, "--control-port" in refused.value.hint) == ("PORT_IN_USE", True)


def test_open_connections_are_clients_only() -> None:
    """Neither listening sockets nor connections at other ports count; of a process that is gone nothing is known."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as other:
        port = server.getsockname()[1]
        assert ports.open_connections(os.getpid(), port) == 0
        with socket.create_connection(server.getsockname()), socket.create_connection(other.getsockname()):
            accepted, _ = server.accept()
            assert ports.open_connections(os.getpid(), port) == 1
            accepted.close()
    ended = subprocess.Popen(["true"])
    ended.wait()

    assert ports.open_connections(ended.pid, port) is None


def test_address_that_is_not_ours_is_explained() -> None:
    """TEST-NET-1 is nobody's."""
    with pytest.raises(Refused, match=r"192\.0\.2\.1") as refused:
        ports.require_free("192.0.2.1", 8080, "data", "--port")

    assert "--host" in refused.value.hint


def test_nats_moves_when_its_port_was_taken() -> None:
    """Only the platform's own processes use the port: it may change between starts, not within one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        kept = taken.getsockname()[1]

        assert ports.choose_nats(kept) != kept
    assert ports.choose_nats(kept) == kept


@pytest.mark.parametrize(
    ("system", "machine", "libc"),
    [
        ("darwin", "arm64", ("", "")),
        ("linux", "aarch64", ("glibc", "2.36")),
        ("linux", "x86_64", ("", "")),
        ("linux", "x86_64", ("glibc", "2.17")),
    ],
)
def test_other_machines_are_refused_at_once(system: str, machine: str, libc: tuple[str, str]) -> None:
    """The refusal says what is supported."""
    with pytest.raises(Refused) as refused:
        supported.require_supported(system, machine, libc)

    assert "x86-64" in refused.value.hint
