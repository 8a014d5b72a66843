"""Ports: whether one is free, who has it, and choosing one.

Decides nothing that is kept. Never binds a port for longer than the question takes.
"""

from __future__ import annotations

import errno
import random
import socket
from pathlib import Path

import psutil

from easel_contracts.errors import Refused

NATS_PORTS = range(14222, 14322)
"""Below the kernel's own and beside the replicas' range."""


def is_free(host: str, port: int) -> bool:
    """Whether a listener could bind the port now. Raises OSError where the address itself cannot be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            # Another listener that also set SO_REUSEADDR is only seen here.
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def holder(port: int) -> str:
    """Who listens on the port, as a person would say it; empty where that cannot be seen."""
    try:
        found = psutil.net_connections("tcp")
    except psutil.Error:
        return ""
    for connection in found:
        if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
            if connection.pid is None:
                return "another user's process"
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.Error:
                return f"pid {connection.pid}"
    return ""


def kernel_moves_connections() -> bool:
    """Whether connections nobody has accepted yet move to another listener of the port when one closes (Linux 5.14:
    net.ipv4.tcp_migrate_req); else the kernel resets them."""
    setting = Path("/proc/sys/net/ipv4/tcp_migrate_req")
    return setting.exists() and setting.read_text().strip() == "1"


def listening(host: str, port: int) -> set[int]:
    """Processes of this user that listen at exactly this address: several may, where all of them allow it."""
    try:
        found = psutil.net_connections("tcp")
    except psutil.Error:
        return set()
    return {c.pid for c in found if c.status == psutil.CONN_LISTEN and c.pid and c.laddr == (host, port)}


def require_alone(host: str, port: int, ours: set[int], what: str, option: str) -> None:
    """Raises Refused where another platform began at the same moment and shares the port: it would get our calls."""
    if foreign := listening(host, port) - ours:
        raise Refused(
            "PORT_IN_USE", f"port {port} of the {what} listener is also that of pid {min(foreign)}",
            f"stop it, or choose another port with {option}",
        )  # fmt: skip


def open_connections(pid: int, *ports: int) -> int | None:
    """Connections of clients that a process has at its ports; None where that cannot be seen."""
    try:
        found = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return None
    return sum(1 for c in found if c.status != psutil.CONN_LISTEN and c.laddr and c.laddr.port in ports)


def require_free(host: str, port: int, what: str, option: str) -> None:
    """Raises Refused, naming who has the port and the option that moves ours."""
    try:
        if is_free(host, port):
            return
    except OSError as error:
        raise Refused(
            "CANNOT_LISTEN", f"the {what} listener cannot use {host}:{port}: {error.strerror}",
            f"choose another port with {option} (ports below 1024 need root)" if port < 1024
            else "choose another address with --host",
        ) from error  # fmt: skip
    who = holder(port)
    raise Refused(
        "PORT_IN_USE",
        f"port {port} of the {what} listener is in use" + (f" by {who}" if who else ""),
        f"stop it, or choose another port with {option}",
    )


def choose_nats(kept: int) -> int:
    """The port NATS had, if it is still free, else another."""
    # at random: two platforms that start at the same moment rarely choose the same
    for port in ([kept] if kept else []) + random.sample(NATS_PORTS, len(NATS_PORTS)):
        if is_free("127.0.0.1", port):
            return port
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return int(any_port.getsockname()[1])
