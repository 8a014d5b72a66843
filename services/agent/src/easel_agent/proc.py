"""Reads /proc: process trees, their use of CPU and memory, and the sockets on which they accept connections."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address

from easel_agent.model import Listening, Usage

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / (1024 * 1024)
EMBEDDED_DNS = "127.0.0.11"
"""Where an engine's own name server listens in each container."""
LISTEN = "0A"
"""TCP state in /proc/net/tcp."""


class ProcessTable:
    """All processes at one moment; made once a second and shared by all replicas."""

    def __init__(self) -> None:
        self._children: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit() and (parent := _parent(int(name))) is not None:
                self._children.setdefault(parent, []).append(int(name))

    def below(self, pid: int) -> list[int]:
        """Every descendant of `pid`, without itself."""
        found, todo = [], [pid]
        while todo:
            children = self._children.get(todo.pop(), [])
            found += children
            todo += children
        return found


def below(pid: int) -> list[int]:
    """Every descendant of one process, without itself; cheaper than a ProcessTable."""
    found, todo = [], [pid]
    while todo:
        children = children_of(todo.pop())
        found += children
        todo += children
    return found


def children_of(pid: int) -> list[int]:
    """Children of one process, of all its threads."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as stream:
                found += [int(child) for child in stream.read().split()]
        except OSError:
            continue
    return found


def usage(pids: Iterable[int]) -> Usage | None:
    """Sum over processes; resident memory counts shared pages once for each (see `proportional_mib`)."""
    ticks, pages, seen = 0, 0, False
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
        except OSError:
            continue
        seen = True
        ticks += int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])
        pages += int(fields[21])
    return Usage(cpu_s=ticks / CLOCK_TICKS, memory_mib=pages * PAGE_MIB) if seen else None


def proportional_mib(pids: Iterable[int]) -> float:
    """Resident memory with each shared page counted once over its users. Dear: only to confirm a breach."""
    kib = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as stream:
                kib += next((int(line.split()[1]) for line in stream if line.startswith("Pss:")), 0)
        except OSError:
            continue
    return kib / 1024


def listening(pids: Iterable[int]) -> list[Listening]:
    """Sockets on which one of the processes accepts TCP connections."""
    inodes: set[str] = set()
    for pid in pids:
        inodes |= _sockets(pid)
    return sorted({socket for inode, socket in _listeners() if inode in inodes})


def listening_in(pid: int) -> list[Listening] | None:
    """Sockets that accept TCP connections in the network of a process; None: it cannot be looked at."""
    if same_network(os.getpid(), pid) is not False:
        return None
    found = sorted({socket for _, socket in _listeners(f"/proc/{pid}/net")})
    return [socket for socket in found if socket.ip != EMBEDDED_DNS]


def same_network(one: int, other: int) -> bool | None:
    """Whether two processes share a network; None: that cannot be seen."""
    try:
        return os.readlink(f"/proc/{one}/ns/net") == os.readlink(f"/proc/{other}/ns/net")
    except OSError:
        return None


def kill(pid: int) -> None:
    """End a process that may have ended already, or may not be ours to end."""
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def _sockets(pid: int) -> set[str]:
    found: set[str] = set()
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return found
    for name in names:
        try:
            text = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if text.startswith("socket:["):
            found.add(text[8:-1])
    return found


def _listeners(directory: str = "/proc/net") -> Iterable[tuple[str, Listening]]:
    for table in ("tcp", "tcp6"):
        try:
            with open(f"{directory}/{table}", encoding="ascii") as stream:
                rows = stream.readlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == LISTEN:
                address, _, port = fields[1].partition(":")
                yield fields[9], Listening(ip=_ip(address), port=int(port, 16))


def _ip(text: str) -> str:
    """The kernel prints addresses as 32-bit words in host order (little-endian on what Easel runs on)."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    raw = b"".join(words)
    if len(raw) == 4:
        return str(IPv4Address(raw))
    mapped = IPv6Address(raw).ipv4_mapped
    return str(mapped or IPv6Address(raw))


def _parent(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            return int(stream.read().rpartition(b")")[2].split()[1])
    except OSError:
        return None
